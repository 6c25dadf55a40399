//! [`redis`]: the URLs of the Redis in `spring.data.redis`.

use std::fmt::Write;

use config::{Value, ValueKind};

use super::properties::Properties;

/// The demo's keys, and those of Spring that they come from.
pub(super) struct Found {
    pub(super) values: Vec<(&'static str, ValueKind)>,
    pub(super) used: Vec<String>,
}

/// Where the section is: since Spring Boot 3, and before.
const SECTIONS: [&str; 2] = ["spring.data.redis", "spring.redis"];

/// Reads the section; `None` if there is none.
///
/// # Errors
/// A placeholder without a value. The text shows no password.
pub(super) fn redis(properties: &Properties<'_>) -> Result<Option<Found>, String> {
    let names = ["url", "host", "sentinel.nodes", "cluster.nodes"];
    let has =
        |section: &&&str| names.iter().any(|name| properties.get(&format!("{section}.{name}")).is_some());
    let Some(section) = SECTIONS.iter().find(has) else { return Ok(None) };
    let mut found = Found { values: Vec::new(), used: Vec::new() };
    let mut text = |name: &str| -> Result<Option<String>, String> {
        let key = format!("{section}.{name}");
        let value = properties.text(&key).transpose().map_err(|problem| format!("{key}: {problem}"))?;
        if value.is_some() {
            found.used.push(key);
        }
        Ok(value)
    };
    let url = text("url")?;
    let ssl = [text("ssl.enabled")?, text("ssl")?].into_iter().flatten().any(|text| text == "true");
    let scheme = if ssl { "rediss" } else { "redis" };
    let login = |user: Option<String>, password: Option<String>| match (user, password) {
        (user, Some(password)) => format!("{}:{}@", encoded(&user.unwrap_or_default()), encoded(&password)),
        (Some(user), None) => format!("{}@", encoded(&user)),
        (None, None) => String::new(),
    };
    let database = text("database")?.unwrap_or_else(|| "0".to_owned());
    let own = login(text("username")?, text("password")?);
    let sentinels = text("sentinel.nodes")?;
    let nodes = match &sentinels {
        Some(_) => sentinels.clone(),
        None => text("cluster.nodes")?,
    };
    let Some(nodes) = nodes else {
        let host = text("host")?.unwrap_or_else(|| "localhost".to_owned());
        let port = text("port")?.unwrap_or_else(|| "6379".to_owned());
        let url = url.unwrap_or_else(|| format!("{scheme}://{own}{host}:{port}/{database}"));
        found.values.push(("redis.url", url.into()));
        return Ok(Some(found));
    };
    let sentinel_login = login(text("sentinel.username")?, text("sentinel.password")?);
    let master = text("sentinel.master")?;
    let of_nodes = if sentinels.is_some() { &sentinel_login } else { &own };
    let urls: Vec<Value> = nodes
        .split(',')
        .map(str::trim)
        .filter(|node| !node.is_empty())
        .map(|node| Value::from(format!("{scheme}://{of_nodes}{node}/")))
        .collect();
    let first = nodes.split(',').next().unwrap_or_default().trim().to_owned();
    let (topology, url) = if sentinels.is_some() {
        ("sentinel", format!("{scheme}://{own}{first}/{database}"))
    } else {
        ("cluster", format!("{scheme}://{own}{first}/"))
    };
    found.values.push(("redis.url", url.into()));
    found.values.push(("redis.topology", topology.into()));
    found.values.push(("redis.nodes", urls.into()));
    if let Some(master) = master {
        found.values.push(("redis.service", master.into()));
    }
    Ok(Some(found))
}

/// A text as it is written in front of the host of a URL.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            all.push(byte.into());
        } else {
            write!(all, "%{byte:02X}").ok();
        }
        all
    })
}
