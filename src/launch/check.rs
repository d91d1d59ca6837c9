//! `--check-config`: what a start would refuse, without the start.

use std::sync::Arc;

use crate::certificates::Certificates;
use crate::config::{LogTarget, Notice, Settings};
use crate::log::error::{Log, Who};
use crate::log::sink::Sink;
use crate::master::{self, code};
use crate::wsgi;

use super::{access, complain, enter, print, settle};

/// Imports the application as a worker would, and reports whether that worked.
pub(super) fn check(settings: &Settings, notices: &[Notice]) -> i32 {
    // As the user that starts the server: the one that the application will run as may read it, but not the keys.
    let certificates = Certificates::of(settings.tls.as_ref());
    let found = master::privileges::resolve(settings).and_then(|identity| Ok((identity, certificates?)));
    let (identity, certificates) = match found {
        Ok(found) => found,
        Err(why) => {
            complain(&why);
            return code::USAGE;
        }
    };
    let assumed = identity.map_or(Ok(()), |identity| access::assume(&identity));
    // This comes after the change of the user, who must not read the terminal that standard error may be.
    let sink = match Sink::open(&LogTarget::Stderr) {
        Ok(sink) => sink,
        Err(_) => return code::FAILED,
    };
    let log = Log::new(Arc::new(sink), settings.log_level, Who::Master);
    for notice in notices {
        log.write(notice.level, format_args!("{notice}"));
    }
    certificates.inspect(|certificates| certificates.tell(&log));
    let checked = assumed.and_then(|()| settle(settings)).and_then(|()| enter(settings));
    let checked = checked.and_then(|()| wsgi::check(settings, &log).map_err(|error| access::explain(error, settings)));
    log.finish();
    match checked {
        Ok(()) => print("tapster: the configuration is valid and the application can be loaded\n"),
        Err(error) => {
            complain(error.text.trim_end());
            if error.app { code::APP } else { code::BOOT }
        }
    }
}
