//! [`Recording`]: the content of Redis as a version of realtime has written it, as text.
//!
//! A line is a command of Redis, its arguments separated by tabs. Times are relative to when it is written again:
//! `{ms+9000}` and `{s+3600}` are nine seconds and an hour from then, and `{replid}` is the replication id of the server.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use realtime_tests::Redis;
use serde_json::Value;

/// Commands that write the content of a Redis.
#[derive(Debug, Clone)]
pub(super) struct Recording(Vec<Vec<String>>);

/// Where the recordings are, one for each version that wrote in another way than the one before.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/redis")
}

impl Recording {
    /// All recordings with their names, oldest first.
    pub(super) fn all() -> Vec<(String, Self)> {
        let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "tsv")).collect();
        files.sort();
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let lines = lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect();
            (path.file_name().unwrap().to_string_lossy().into_owned(), Self(lines))
        };
        files.into_iter().map(read).collect()
    }

    /// Writes it to a file.
    pub(super) fn save(&self, name: &str) {
        let lines: Vec<_> = self.0.iter().map(|command| command.join("\t")).collect();
        let head = "# What realtime keeps in Redis, in the format of tests/tests/cluster/mixed_versions/recording.rs.";
        fs::create_dir_all(folder()).unwrap();
        fs::write(folder().join(name), format!("{head}\n{}\n", lines.join("\n"))).unwrap();
    }

    /// Reads what a Redis holds.
    pub(super) fn of(redis: &Redis) -> Self {
        let ask = |command: &[&str]| {
            let command: Vec<_> = ["--json"].iter().chain(command).copied().collect();
            let answer = redis.cli(&command);
            serde_json::from_str::<Value>(&answer)
                .unwrap_or_else(|error| panic!("{command:?}: {error}: {answer}"))
        };
        let mut keys = texts(&ask(&["keys", "*"]));
        keys.sort();
        let epoch = redis.cli(&["hget", "{rt}:epoch", "epoch"]);
        let replid = replication_id(redis);
        let mut commands = Vec::new();
        for key in &keys {
            let mut write = |command: &str, arguments: Vec<String>| {
                let placed =
                    arguments.iter().map(|text| place_times(&text.replace(&replid, "{replid}"), &epoch));
                commands.push([command.to_owned(), key.clone()].into_iter().chain(placed).collect());
            };
            match redis.cli(&["type", key]).as_str() {
                "string" => write("SET", texts(&ask(&["get", key]))),
                "set" => {
                    texts(&ask(&["smembers", key])).into_iter().for_each(|member| write("SADD", vec![member]))
                }
                "hash" => {
                    let Value::Object(hash) = ask(&["hgetall", key]) else { panic!("{key}") };
                    hash.iter().for_each(|(name, value)| write("HSET", vec![name.clone(), text(value)]));
                }
                "zset" => texts(&ask(&["zrange", key, "0", "-1", "withscores"]))
                    .chunks(2)
                    .for_each(|pair| write("ZADD", vec![pair[1].clone(), pair[0].clone()])),
                "stream" => {
                    let Value::Array(entries) = ask(&["xrange", key, "-", "+"]) else { panic!("{key}") };
                    entries.iter().for_each(|entry| write("XADD", texts(entry)));
                }
                other => panic!("{key} is of type {other}"),
            }
            if redis.cli(&["pttl", key]).parse::<i64>().unwrap() > 0 {
                write("PEXPIRE", vec!["60000".to_owned()]);
            }
        }
        Self(commands)
    }

    /// Writes it into a Redis.
    pub(super) fn load(&self, redis: &Redis) {
        let replid = replication_id(redis);
        for command in &self.0 {
            let command: Vec<_> =
                command.iter().map(|text| at_now(&text.replace("{replid}", &replid))).collect();
            // In JSON an array, so that a word of an error is seen as one.
            let command: Vec<_> = ["--json"].into_iter().chain(command.iter().map(String::as_str)).collect();
            let answer = redis.cli(&command);
            assert!(!answer.is_empty() && !answer.contains("ERR"), "{command:?}: {answer}");
        }
    }

    /// The commands on keys with this ending.
    pub(super) fn of_key(&self, ending: &str) -> Self {
        Self(self.0.iter().filter(|command| command[1].ends_with(ending)).cloned().collect())
    }

    /// The values of a field of the entries of a stream.
    pub(super) fn field(&self, name: &str) -> Vec<String> {
        let fields =
            self.0.iter().filter(|command| command[0] == "XADD").flat_map(|command| command[3..].chunks(2));
        fields.filter(|pair| pair[0] == name).map(|pair| at_now(&pair[1])).collect()
    }

    /// The same with what a later version may add: a field in each entry and record, a member in each object of JSON.
    pub(super) fn with_additions(&self) -> Self {
        let added = |command: &Vec<String>| {
            let mut command: Vec<_> = command.iter().map(|text| add_members(text)).collect();
            match command[0].as_str() {
                "XADD" => command.extend(["later".to_owned(), "{\"x\":[1]}".to_owned()]),
                "HSET" if command[1].contains(":stream:") || command[1].ends_with(":epoch") => {
                    command.extend(["later".to_owned(), "x".to_owned()]);
                }
                _ => {}
            }
            command
        };
        Self(self.0.iter().map(added).collect())
    }

    /// What it consists of: the kinds of keys, with the fields of entries and records and the members of JSON.
    pub(super) fn shape(&self) -> BTreeSet<String> {
        let mut shape = BTreeSet::new();
        for command in self.0.iter().filter(|command| command[0] != "PEXPIRE") {
            let key = key_kind(&command[1]);
            // A hash with fixed fields is a record; the others are tables, by users, nodes and so on.
            let is_record = key == "{rt}:epoch" || key == "{rt}:stream:" || key == "{rt}:stream-sweep";
            let values = match command[0].as_str() {
                "XADD" => &command[3..],
                "HSET" if is_record => &command[2..],
                "HSET" | "ZADD" => &command[3..],
                _ => &command[2..],
            };
            shape.insert(format!("{} {key}", command[0]));
            if command[0] == "XADD" || is_record {
                for pair in values.chunks(2) {
                    shape.insert(format!("{key} {}", pair[0]));
                    members(&pair[1], &format!("{key} {}", pair[0]), &mut shape);
                }
            } else if let Some(json) = values.first() {
                members(json, &key, &mut shape);
            }
        }
        shape
    }
}

fn replication_id(redis: &Redis) -> String {
    let info = redis.cli(&["info", "replication"]);
    info.lines().find_map(|line| line.strip_prefix("master_replid:")).unwrap().to_owned()
}

/// The texts in an answer, however deep.
fn texts(answer: &Value) -> Vec<String> {
    match answer {
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        value => vec![text(value)],
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // A score.
        Value::Number(number) => number.as_f64().unwrap().to_string(),
        other => panic!("{other}"),
    }
}

fn is_id(line: &str) -> bool {
    line.split_once('-').is_some_and(|(time, number)| {
        time.len() == 13 && [time, number].iter().all(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Replaces times around now by placeholders. Ids of entries and positions are no times.
fn place_times(text: &str, epoch: &str) -> String {
    if is_id(text) {
        return text.to_owned();
    }
    let (ms, s) =
        (since_1970().as_millis().try_into().unwrap_or(i64::MAX), since_1970().as_secs().cast_signed());
    let mut placed = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (digits, after) = from.split_at(end);
        // Of an id in hexadecimal, a position, or a fraction.
        let is_part = before.ends_with(|c: char| c.is_ascii_alphabetic() || c == '.' || c == '-')
            || after.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.' || c == '-')
            || (digits == epoch && text != epoch);
        let number = digits.parse::<i64>().ok().filter(|_| !is_part);
        placed.push_str(before);
        match (number, digits.len()) {
            (Some(at), 13) if (at - ms).abs() < 86_400_000 && text != epoch => {
                placed.push_str(&format!("{{ms{:+}}}", at - ms));
            }
            (Some(at), 10) if (at - s).abs() < 2 * 365 * 86_400 => {
                placed.push_str(&format!("{{s{:+}}}", at - s))
            }
            _ => placed.push_str(digits),
        }
        rest = after;
    }
    placed + rest
}

/// Replaces placeholders by times.
fn at_now(text: &str) -> String {
    let now = since_1970();
    let mut done = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("{ms").into_iter().chain(rest.find("{s")).min() {
        let (before, from) = rest.split_at(start);
        let (mark, after) = from.split_once('}').unwrap();
        let unit = mark.trim_start_matches('{').trim_end_matches(|c: char| c.is_ascii_digit());
        let unit = unit.trim_end_matches(['+', '-']);
        let offset: i64 = mark[1 + unit.len()..].parse().unwrap();
        let base = if unit == "ms" { now.as_millis() as i64 } else { now.as_secs() as i64 };
        done.push_str(before);
        done.push_str(&(base + offset).to_string());
        rest = after;
    }
    done + rest
}

/// The key without what differs from one to the next.
fn key_kind(key: &str) -> String {
    let (tag, name) = key.split_once("}:").unwrap();
    let name = match name.split_once(':') {
        Some((kind @ ("id" | "stream" | "text" | "node" | "receipts" | "ticket"), _)) => format!("{kind}:"),
        _ => name.to_owned(),
    };
    format!("{tag}}}:{name}")
}

/// The JSON at the end of a text, after the position of a retained message or from its beginning.
fn json(text: &str) -> Option<(&str, Value)> {
    let (before, json) = text.split_at(text.find(['{', '['])?);
    // Placeholders are numbers.
    let numbers = at_now(json);
    Some((before, serde_json::from_str(&numbers).ok()?))
}

fn members(text: &str, path: &str, shape: &mut BTreeSet<String>) {
    if let Some((_, value)) = json(text) {
        add_shape(&value, path, shape);
    }
}

fn add_shape(value: &Value, path: &str, shape: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{path}.{name}");
                shape.insert(path.clone());
                add_shape(value, &path, shape);
            }
            // The members of a command depend on which it is.
            if let Some(command) = object.get("command") {
                shape.extend(object.keys().map(|name| format!("{path} {command} {name}")));
            }
        }
        Value::Array(values) => values.iter().for_each(|value| add_shape(value, &format!("{path}[]"), shape)),
        _ => {}
    }
}

fn add_members(text: &str) -> String {
    let Some((before, mut value)) = json(text) else { return text.to_owned() };
    let objects = match &mut value {
        Value::Array(values) => values.iter_mut().collect(),
        value => vec![value],
    };
    for object in objects {
        if let Value::Object(object) = object {
            object.insert("later".into(), serde_json::json!({ "x": [1, null] }));
        }
    }
    format!("{before}{value}")
}
