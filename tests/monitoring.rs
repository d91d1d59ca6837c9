//! The dashboard and the alerts of scripts/monitoring: promtool takes them, and every metric that they name is one of a server.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use common::SOON;
use common::client::{Address, Client};
use common::server::Server;
use common::tools::{self, skip, tool};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/monitoring").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).expect("it is in the repository")
}

/// The expressions of the dashboard's panels.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&text("grafana.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("each has targets"));
    targets.map(|target| target["expr"].as_str().expect("each has one").to_owned()).collect()
}

#[test]
fn promtool_takes_the_alerts_and_the_expressions_of_the_dashboard() {
    let Some(promtool) = tool("promtool") else { return skip("promtool (package prometheus) is not installed") };
    let check = |words: &[&str], path: PathBuf| {
        tools::run(Command::new(&promtool).args(words).arg(path), SOON).succeeded();
    };
    check(&["check", "rules", "--lint=all", "--lint-fatal"], file("alerts.yml"));
    check(&["test", "rules"], file("alerts.test.yml"));
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let rules = expressions().iter().enumerate().fold("groups: [{name: x, rules: [".to_owned(), |rules, (number, expression)| {
        // Variables of Grafana.
        let expression = expression.replace("$__rate_interval", "1m");
        format!("{rules}{{record: 'x:{number}', expr: {}}},", Value::from(expression))
    });
    let path = dir.path().join("dashboard.yml");
    fs::write(&path, rules + "]}]\n").expect("the temp directory is writable");
    check(&["check", "rules", "--lint=none"], path);
}

#[test]
fn every_metric_that_is_named_is_one_of_a_server() {
    let server = Server::new("hello").start();
    server.get("/");
    let mut client = Client::connect(&match server.control() {
        Address::Unix(path) => Address::Unix(path),
        other @ (Address::Tcp(_) | Address::Tls(_)) => panic!("{other} is no control socket"),
    });
    let metrics = client.get("/metrics").text();
    let all = [text("alerts.yml"), text("alerts.test.yml"), expressions().join(" ")].concat();
    let named: BTreeSet<&str> = all
        .split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| word.starts_with("tapster_") || word.starts_with("process_"))
        .collect();
    assert!(named.len() > 20, "{named:?}");
    let known = |name: &&str| {
        let family = name.trim_end_matches("_bucket");
        metrics.contains(&format!("# TYPE {family} "))
    };
    let unknown: Vec<_> = named.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are in no\n{metrics}");
    server.stop();
}
