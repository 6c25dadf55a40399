//! The files for Prometheus and Grafana are valid, ask for metrics that exist, and each alert has its runbook entry.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;

use super::exposition::documented;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../apps/demo/deploy");

fn read(path: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{path}")).unwrap()
}

fn promtool(arguments: &[&str]) {
    let output =
        Command::new("promtool").current_dir(format!("{FOLDER}/prometheus")).args(arguments).output();
    let output = output.expect("promtool is installed (apt package prometheus)");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {text}");
}

#[test]
fn promtool_takes_the_configuration_and_the_rules_and_the_rules_do_what_their_tests_say() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
}

/// The metrics that a query names.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("realtime_") || word.starts_with("process_"))
}

/// Checks that what a query asks for is exported. Returns the number of metrics in it.
fn check(query: &str) -> usize {
    let metrics = documented();
    let is_known = |name: &str| {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        match histogram.and_then(|name| metrics.get(name)) {
            Some((kind, _)) => kind == "histogram",
            None => metrics.get(name).is_some_and(|(kind, _)| kind != "histogram"),
        }
    };
    let labels: BTreeSet<_> = metrics.values().flat_map(|(_, labels)| labels).map(String::as_str).collect();
    for name in names(query) {
        assert!(is_known(name), "{name} in {query}");
    }
    // Other exporters have these too.
    for selector in query.split("process_").skip(1) {
        let matchers = selector.split_once('{').map_or("", |(_, matchers)| matchers);
        assert!(matchers.starts_with("job=\"realtime\""), "any job's process_* in {query}");
    }
    // Labels of selectors: what stands before `=` and the like within braces.
    for selector in query.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        for label in selector.split(',').filter_map(|matcher| matcher.split(['=', '!']).next()) {
            let of_prometheus = ["job", "instance"].contains(&label.trim());
            assert!(of_prometheus || labels.contains(label.trim()), "{label} in {query}");
        }
    }
    names(query).count()
}

#[test]
fn each_panel_of_the_dashboard_asks_for_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("grafana/realtime.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut asked, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for query in targets.iter().map(|target| target["expr"].as_str().unwrap()) {
            assert!(check(query) > 0, "{title}: {query}");
            asked.extend(names(query).map(str::to_owned));
        }
    }
    // What nobody can see may as well not be counted.
    let histogram = |name: &str| asked.contains(&format!("{name}_bucket"));
    for (name, (kind, _)) in documented() {
        let is_shown = asked.contains(&name) || kind == "histogram" && histogram(&name);
        assert!(is_shown || name.starts_with("process_"), "{name} is on no panel");
    }
}

#[test]
fn each_alert_asks_for_metrics_that_exist_and_has_a_runbook_entry_and_a_test() {
    let (rules, tests) = (read("prometheus/alerts.yml"), read("prometheus/alerts_test.yml"));
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).unwrap();
    let workspace = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).unwrap();
    let repository = workspace.lines().find_map(|line| line.strip_prefix("repository = "));
    let repository = repository.expect("the address of the repository").trim_matches('"');
    let chapter = docs.split("\n## Alerts\n").nth(1).expect("a chapter about alerts");
    let chapter = chapter.split("\n## ").next().unwrap();
    let described: Vec<_> = chapter.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let mut alerts = Vec::new();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap().trim();
        let expression = rule.split("expr: ").nth(1).unwrap().split("\n        for:").next().unwrap();
        let of_prometheus = ["RealtimeNodeDown", "RealtimeNoNodes"].contains(&name);
        assert!(check(expression) > 0 || of_prometheus, "{name}: {expression}");
        let runbook =
            format!("runbook_url: {repository}/blob/main/docs/operations.md#{}", name.to_lowercase());
        assert!(rule.contains(&runbook), "{name}: {runbook}");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} has no test");
        alerts.push(name);
    }
    assert_eq!(alerts, described, "the alerts and their entries in docs/operations.md, in the same order");
}
