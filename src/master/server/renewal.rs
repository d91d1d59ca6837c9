//! Certificates that change while the server runs: their files are looked at by a copy of the master, and workers get what is new.

use std::os::fd::AsFd;
use std::time::Instant;

use crate::certificates::{self, Certificates, Found};
use crate::master::credentials::Credentials;
use crate::master::errand::Errand;
use crate::master::event::SlotIndex;
use crate::master::renewal::{ANSWER_MAX, LOOK_TIMEOUT};
use crate::sys::time::wall;

use super::Server;

impl Server {
    /// Takes in what a look has found, and begins the next one if that is due. During a reload the files are read anyway.
    pub(super) fn renew_certificates(&mut self) {
        let now = Instant::now();
        if let Some(found) = self.found(now) {
            self.take_found(found);
        }
        let settings = self.generations.current().settings.clone();
        if !self.renewal.is_due(&settings, now) {
            return;
        }
        self.rotate_tickets();
        self.remind();
        let is_free = self.renewal.looking.is_none() && self.reading.is_none() && !self.generations.is_trying();
        if let (Some(tls), Some(known)) = (&settings.tls, self.generations.current().credentials.as_ref())
            && is_free
            && !settings.tls_watch.is_zero()
        {
            let look = || Ok(serde_json::to_vec(&certificates::look(tls, &known.certificates.stamps, wall().seconds))?);
            match Errand::start(LOOK_TIMEOUT, ANSWER_MAX, look) {
                Ok(errand) => self.renewal.looking = Some(errand),
                Err(error) if self.renewal.stall() => {
                    self.log().error(format_args!("the files of certificates cannot be looked at: {error}"));
                }
                Err(_) => {}
            }
        }
        // Those that had no room in their channel.
        self.send_credentials();
    }

    fn found(&mut self, now: Instant) -> Option<Result<Found, String>> {
        let said = self.renewal.looking.as_mut()?.outcome(now)?;
        if let Some(errand) = self.renewal.looking.take() {
            errand.end();
        }
        // Its process is about to end, or has ended unheard.
        self.orphans = true;
        let unheard = |_| "has ended without an answer".to_owned();
        Some(said.and_then(|bytes| serde_json::from_slice(&bytes).map_err(unheard)))
    }

    fn take_found(&mut self, found: Result<Found, String>) {
        let now = wall().seconds;
        if self.reading.is_some() || self.generations.is_trying() {
            // A reload has read them too, later.
            return;
        }
        let Some(credentials) = self.generations.current().credentials.clone() else { return };
        match found {
            Ok(Found::Same) => {
                if self.renewal.accept() {
                    self.log().info(format_args!("the files of certificates are what is served again"));
                }
            }
            Ok(Found::Unusable(why, stamps)) => self.refuse_certificates(&why, stamps),
            Ok(Found::Changed(certificates)) => match certificates.is_older_than(&credentials.certificates, now) {
                Some(why) => self.refuse_certificates(&why, certificates.stamps),
                None => self.take_certificates(*certificates, &credentials, now),
            },
            Err(why) if self.renewal.stall() => {
                self.log().error(format_args!("certificates: what is in their files {why}; the present ones are served on"));
            }
            Err(_) => {}
        }
    }

    fn refuse_certificates(&mut self, why: &str, stamps: Vec<Option<certificates::FileStamp>>) {
        if self.renewal.refuse(stamps) {
            self.log().error(format_args!("certificates are not renewed, the present ones are served on: {why}"));
        }
    }

    fn take_certificates(&mut self, certificates: Certificates, old: &Credentials, now: u64) {
        self.renewal.accept();
        let is_new = !certificates.is_as(&old.certificates);
        match old.next(certificates, true, now) {
            Ok(credentials) => {
                if is_new {
                    self.log().info(format_args!("certificates renewed"));
                    credentials.certificates.tell(self.log());
                }
                self.generations.current_mut().credentials = Some(credentials);
                if is_new {
                    self.renewal.edition += 1;
                    self.send_credentials();
                }
            }
            Err(why) => self.log().error(format_args!("certificates are not renewed: {why}")),
        }
    }

    /// Makes another secret for new tickets, if that is due.
    fn rotate_tickets(&mut self) {
        if self.reading.is_some() || self.generations.is_trying() {
            return;
        }
        let rotated = self.generations.current().credentials.as_ref().and_then(|old| old.rotated(wall().seconds));
        match rotated {
            Some(Ok(credentials)) => {
                self.generations.current_mut().credentials = Some(credentials);
                self.renewal.edition += 1;
            }
            Some(Err(why)) => self.log().error(format_args!("the secrets of session tickets stay as they are: {why}")),
            None => {}
        }
    }

    /// Says once a day which certificates expire.
    fn remind(&mut self) {
        let now = wall().seconds;
        let doubts: Vec<String> = match &self.generations.current().credentials {
            Some(credentials) => credentials.certificates.facts.iter().filter_map(|facts| facts.doubt(now)).collect(),
            None => return,
        };
        if !doubts.is_empty() && self.renewal.is_to_remind(now) {
            for doubt in doubts {
                self.log().warning(format_args!("{doubt}"));
            }
        }
    }

    /// Sends what is served to the workers of the generation that have something older.
    fn send_credentials(&mut self) {
        let (edition, kit) = (self.renewal.edition, self.generations.current());
        let (current, _) = self.supervisor.generations();
        let behind: Vec<SlotIndex> = self
            .table
            .living_ones()
            .filter(|(slot, child)| child.edition < edition && self.supervisor.generation(*slot) == Some(current))
            .map(|(slot, _)| slot)
            .collect();
        let Some(credentials) = kit.credentials.as_ref().filter(|_| !behind.is_empty()) else { return };
        let file = match certificates::seal(&credentials.material()) {
            Ok(file) => file,
            Err(error) => return self.log().error(format_args!("workers do not get the new certificates: {error}")),
        };
        for slot in behind {
            // It fails for a worker that is gone, or has no room: that one gets it at the next look.
            let sent = self.table.channel(slot).is_some_and(|channel| channel.send_credentials(file.as_fd()).is_ok());
            if let (true, Some(child)) = (sent, self.table.child_mut(slot)) {
                child.edition = edition;
            }
        }
    }
}
