//! Web servers in front of the server under test, each with the configuration that the manual page prints.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::common::client::{Address, Client};
use crate::common::server::{STOP_LIMIT, binary};
use crate::common::{SOON, apps, procfs, tools, wait_for};

/// The manual page whose blocks are run.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/tapster-gateways.7");

/// Addresses in the page, each to be replaced by that of the server under test.
const PRINTED: [&str; 4] = ["127.0.0.1:4000", "127.0.0.1:3031", "127.0.0.1:8009", "127.0.0.1:9000"];

/// What the page calls the program, and the application that it serves.
const PROGRAM: &str = "/usr/local/bin/tapster";
const APPLICATION: &str = "--chdir /srv/app app:app";

/// The directory of the page's scripts.
const SCRIPTS: &str = "/srv/app";

/// The block of the page behind `run: NAME`, as it is shown, with the program under test.
pub fn block_of(name: &str) -> Option<String> {
    let page = fs::read_to_string(PAGE).expect("the page is there");
    let (_, rest) = page.split_once(&format!("run: {name}\n"))?;
    let (_, rest) = rest.split_once(".EX\n").expect("a block begins");
    let (block, _) = rest.split_once(".EE\n").expect("a block ends");
    let block = block.replace("\\-", "-").replace("\\e", "\\").replace(PROGRAM, &binary().display().to_string());
    Some(block.replace(APPLICATION, &format!("--chdir {} probe", apps().display())))
}

/// The same for a server at this address.
fn printed(name: &str, server: &Address) -> Option<String> {
    let address = server.tcp();
    let mut block = block_of(name)?;
    for printed in PRINTED {
        let port = printed.rsplit(':').next().expect("it has a port");
        block = block
            .replace(printed, &address.to_string())
            .replace(&format!("\"port\" => {port}"), &format!("\"port\" => {}", address.port()))
            .replace(&format!(".port={port}"), &format!(".port={}", address.port()));
    }
    Some(block)
}

/// Seconds that a web server keeps a connection for the next request. Tests come back to one after they have used others, which may
/// last on a busy machine; some web servers would close it after 5 s.
const KEPT: u32 = 300;

/// A web server, killed at the end. All its files are in a fresh directory.
pub struct Front {
    child: Child,
    address: Address,
    dir: tempfile::TempDir,
}

impl Front {
    /// The web server that `block` names first (`nginx scgi`) with that block of the page, in front of a server at this address;
    /// `None`: it is not installed. `more`: what stands in the place of some lines, or of nothing at the end.
    pub fn start(block: &str, server: &Address, more: &[(&str, &str)]) -> Option<Self> {
        let config = printed(block, server).unwrap_or_else(|| panic!("the page has no block for {block}"));
        let http = printed(&format!("{block} http"), server).unwrap_or_default();
        Self::launch(block, (config, &http), more)
    }

    /// The same for a web server that starts the server under test itself, by the script that the page has for it if there is one.
    pub fn spawning(block: &str, more: &[(&str, &str)]) -> Option<Self> {
        let config = block_of(block).unwrap_or_else(|| panic!("the page has no block for {block}"));
        Self::launch(block, (config, ""), more)
    }

    fn launch(block: &str, (config, http): (String, &str), more: &[(&str, &str)]) -> Option<Self> {
        let dir = tempfile::tempdir().expect("the temp directory is writable");
        // Apache's processes are another user's.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        if let Some(script) = block_of(&format!("{block} script")) {
            let file = dir.path().join(if block.ends_with("fcgid") { "app.fcgi" } else { "app.cgi" });
            fs::write(&file, script).expect("the temp directory is writable");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("the file is ours");
        }
        let config = more.iter().fold(config, |config, (printed, instead)| match *printed {
            "" => config + instead,
            printed => config.replace(printed, instead),
        });
        let path = dir.path().display().to_string();
        let config = config.replace(SCRIPTS, &path).replace("/run/", &format!("{path}/")).replace("{temp}", &path);
        let write = |text: String| {
            let file = dir.path().join("conf");
            fs::write(&file, text).expect("the temp directory is writable");
            file
        };
        // No front can be told to take any free port and say which: one that was free a moment ago.
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port is free").port();
        let mut address = Address::Tcp(([127, 0, 0, 1], port).into());
        let mut command = match block.split(' ').next() {
            Some("nginx") => {
                let mut command = Command::new(tools::tool("nginx")?);
                for params in ["scgi_params", "uwsgi_params", "fastcgi_params"] {
                    std::os::unix::fs::symlink(format!("/etc/nginx/{params}"), dir.path().join(params))
                        .expect("a fresh directory");
                }
                address = Address::Unix(dir.path().join("front.sock"));
                let file = write(format!(
                    "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;\nevents {{}}\nhttp {{\n\
                     access_log off; client_max_body_size 0; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
                     fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n{http}\n\
                     server {{ listen unix:{path}/front.sock; merge_slashes off;\n{config}\n}} }}\n"
                ));
                command.arg("-p").arg(dir.path()).arg("-c").arg(file).arg("-e").arg(dir.path().join("error.log"));
                command
            }
            Some("apache") => {
                let mut command = Command::new(tools::tool("apache2")?);
                let file = write(format!(
                    "ServerRoot /usr/lib/apache2\nServerName front\nPidFile {path}/pid\nErrorLog {path}/error.log\n\
                     User www-data\nGroup www-data\nMaxKeepAliveRequests 0\nKeepAliveTimeout {KEPT}\nListen 127.0.0.1:{port}\nDefaultRuntimeDir {path}\nMutex pthread\nScoreBoardFile {path}/board\n\
                     LoadModule mpm_event_module modules/mod_mpm_event.so\nLoadModule setenvif_module modules/mod_setenvif.so\n\
                     LoadModule authz_core_module modules/mod_authz_core.so\nStartServers 1\nServerLimit 1\nThreadsPerChild 16\n\
                     MaxRequestWorkers 16\nMinSpareThreads 1\nMaxSpareThreads 16\nDocumentRoot {path}\n{config}\n"
                ));
                // As services run it: with `-X`, mod_fcgid does not end all that it has started.
                command.args(["-D", "FOREGROUND", "-f"]).arg(file);
                command
            }
            Some("lighttpd") => {
                let mut command = Command::new(tools::tool("lighttpd")?);
                let file = write(format!(
                    "server.document-root = \"{path}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
                     server.max-keep-alive-idle = {KEPT}\nserver.errorlog = \"{path}/error.log\"\nserver.upload-dirs = ( \"{path}\" )\n{config}\n"
                ));
                command.arg("-D").arg("-f").arg(file);
                command
            }
            Some("haproxy") => {
                let mut command = Command::new(tools::tool("haproxy")?);
                let file = write(format!(
                    "global\n    log stdout format raw local0\ndefaults\n    mode http\n    timeout connect 5s\n    \
                     timeout client 30s\n    timeout server 30s\nfrontend front\n    bind 127.0.0.1:{port}\n    \
                     default_backend app\n{config}\n"
                ));
                command.arg("-q").arg("-db").arg("-f").arg(file);
                command
            }
            Some("caddy") => {
                let mut command = Command::new(tools::tool("caddy")?);
                // It keeps certificates and its last configuration at home.
                command.env("HOME", dir.path()).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
                let file = write(format!(
                    "{{\n    admin off\n    auto_https off\n}}\n\
                     http://:{port} {{\n    bind 127.0.0.1\n{config}\n}}\n"
                ));
                command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
                command
            }
            other => panic!("no front is named {other:?}"),
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"TAPSTER_")) {
            command.env_remove(name);
        }
        let temp = dir.path().join("temp");
        fs::create_dir(&temp)
            .and_then(|()| fs::set_permissions(&temp, fs::Permissions::from_mode(0o1777)))
            .expect("a fresh directory");
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("TMPDIR", temp);
        let log = fs::File::create(dir.path().join("output")).expect("the temp directory is writable");
        // With all that it starts.
        command.process_group(0);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor is free")).stderr(log).spawn();
        let mut front = Self { child: child.expect("the front can be started"), address, dir };
        wait_for("the front to listen", SOON, || {
            if let Ok(Some(status)) = front.child.try_wait() {
                panic!("the front ended with {status}:\n{}", front.log());
            }
            Client::try_connect(&front.address).is_ok().then_some(())
        });
        Some(front)
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A connection to it.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Ends it in order, with all that it has started.
    #[track_caller]
    pub fn stop(mut self) {
        let id = self.child.id() as i32;
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("it lives");
        wait_for("the end of the front", STOP_LIMIT, || self.child.try_wait().expect("it is ours"));
        wait_for("the end of what the front has started", STOP_LIMIT, || {
            procfs::group(id).iter().all(|process| process.is_gone()).then_some(())
        });
    }

    /// All that it has logged and printed.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        read("error.log") + &read("output")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the front\n{}\n---", self.log());
        }
    }
}
