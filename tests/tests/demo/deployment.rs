//! Each variable in the files of `apps/demo/deploy` sets a key that exists, their configuration is valid, and the image's context
//! is whole.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use realtime_tests::{API_KEY, Demo, SECRET};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../apps/demo/deploy");

fn variables(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            variables(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        found.extend(words.filter(|word| word.starts_with("REALTIME__")).map(str::to_owned));
    }
}

fn check(variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(Demo::binary());
    command.args(["check-config", "--config", &format!("{FOLDER}/application.yml")]);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_configuration_is_valid_with_the_variables_and_secrets_of_a_node() {
    let secrets = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = secrets.path().join(name);
        fs::write(&path, format!("{text}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let [jwt, key] = [file("jwt", SECRET), file("api-key", API_KEY)];
    let url = file("redis-url", "redis://redis:6379/");
    for proxies in PROXIES.map(|(file, value)| trusted(file, value)) {
        let (valid, problems) = check(&[
            ("REALTIME__SERVER__HOST", "0.0.0.0"),
            ("REALTIME__SERVER__INTERNAL", "0.0.0.0:9081"),
            ("REALTIME__SERVER__NODE", "node-a"),
            ("REALTIME__SERVER__TRUSTEDPROXIES", &proxies),
            ("REALTIME__REDIS__URL_FILE", &url),
            ("REALTIME__AUTH__JWT__SECRET_FILE", &jwt),
            ("REALTIME__API__KEY_FILE", &key),
        ]);
        assert!(valid && !problems.contains("warning"), "{problems}");
    }
}

/// The files that bring a proxy or stand behind one, and what stands before the addresses that they trust.
const PROXIES: [(&str, &str); 3] = [
    ("compose.yaml", ": "),
    ("kubernetes/deployment.yaml", ", value: "),
    ("systemd/realtime-demo.service", "="),
];

/// The addresses of proxies that a file names.
fn trusted(file: &str, before: &str) -> String {
    let text = fs::read_to_string(format!("{FOLDER}/{file}")).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let found: Vec<_> = lines
        .filter_map(|line| line.split_once(&format!("REALTIME__SERVER__TRUSTEDPROXIES{before}")))
        .map(|(_, value)| value.trim_end_matches([' ', '}']).trim_matches('"').to_owned())
        .collect();
    let [value] = &found[..] else { panic!("{file}: {found:?}") };
    value.clone()
}

#[test]
fn the_proxy_that_comes_along_is_trusted() {
    let [compose, kubernetes, systemd] = PROXIES.map(|(file, before)| trusted(file, before));
    let text = fs::read_to_string(format!("{FOLDER}/compose.yaml")).unwrap();
    assert!(text.contains(&format!("default: {{ ipv4_address: {compose} }}")), "{compose} is nginx's");
    // Its proxy is on the same machine; which ingress there is, is not known.
    assert_eq!((systemd.as_str(), kubernetes.as_str()), ("127.0.0.1", ""));
}

#[test]
fn the_metrics_of_a_process_can_be_read_under_systemd() {
    let unit = fs::read_to_string(format!("{FOLDER}/systemd/realtime-demo.service")).unwrap();
    assert!(!unit.lines().any(|line| line.starts_with("ProcSubset=pid")), "it hides /proc/stat");
}

#[test]
fn each_way_to_run_it_hands_its_secrets_out_as_files() {
    let secrets = ["REALTIME__AUTH__JWT__SECRET", "REALTIME__API__KEY"];
    for (file, _) in PROXIES {
        let text = fs::read_to_string(format!("{FOLDER}/{file}")).unwrap();
        for secret in secrets {
            let named = text.matches(secret).count();
            assert_eq!((named, text.matches(&format!("{secret}_FILE")).count()), (1, 1), "{file}: {secret}");
        }
    }
}

#[test]
fn each_variable_sets_a_key_that_exists() {
    let mut found = BTreeSet::new();
    variables(Path::new(FOLDER), &mut found);
    assert!(found.contains("REALTIME__SERVER__NODE"), "{found:?}");
    for variable in found {
        let (_, problems) = check(&[(&variable, "x")]);
        assert!(!problems.contains("unknown"), "{problems}");
    }
    assert!(check(&[("REALTIME__SERVER__PROT", "1")]).1.contains("unknown"));
}

#[test]
fn the_context_of_the_image_has_every_member_of_the_workspace() {
    let workspace = fs::read_to_string(format!("{ROOT}/Cargo.toml")).unwrap();
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.contains(&"apps/demo"), "{members:?}");
    let ignored = fs::read_to_string(format!("{FOLDER}/Dockerfile.dockerignore")).unwrap();
    let taken: Vec<&Path> =
        ignored.lines().filter_map(|line| line.strip_prefix('!')).map(Path::new).collect();
    for member in members {
        // Without one of them cargo does not read the workspace at all.
        let member = Path::new(member.trim_end_matches("/*"));
        assert!(taken.iter().any(|taken| member.starts_with(taken)), "{}", member.display());
    }
}
