//! [`Auth`]: how logins are checked, and who can log in.

use std::{
    fmt::{self, Display},
    net::IpAddr,
    str::FromStr,
    time::Duration,
};

use argon2::{Algorithm, Params, PasswordHash};
use realtime_core::{
    UserId,
    auth::{ClientIdPolicy, JwtAlgorithm, PublicKeyAlgorithm},
    ruoyi::ErrorStatus,
};
#[cfg(feature = "redis")]
use realtime_redis::SaTokenConfigError;
use serde::{Deserialize, Deserializer, de::Error};

#[cfg(feature = "redis")]
use super::Redis;
use super::{
    ConfigError, SaToken, Secret,
    sections::{not_empty, parsed},
};

/// The section `auth`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Auth {
    /// Method of checking logins.
    #[serde(deserialize_with = "parsed")]
    pub mode: AuthMode,
    /// HTTP status of the response to a refused login.
    pub error_status: ErrorStatus,
    /// Requires a connection to name its `clientid`.
    pub require_client_id: bool,
    /// Time before the end of a login at which its sessions' clients are told.
    #[serde(with = "humantime_serde")]
    pub expiring_notice: Duration,
    /// Name of a cookie that is a login; `None` for no cookie.
    #[serde(deserialize_with = "cookie")]
    pub cookie: Option<String>,
    /// Gives single-use tickets to those who have logged in.
    pub tickets: bool,
    /// Names users and password hint to those who have not logged in.
    pub show_users: bool,
    /// Password hint that the login page shows, if any.
    #[serde(deserialize_with = "hint")]
    pub password_hint: Option<String>,
    /// Signature of tokens.
    pub jwt: Jwt,
    /// Settings of the Java nodes' logins.
    pub sa_token: SaToken,
    /// Users of the demo, with distinct ids and user names.
    pub users: Vec<User>,
}

/// Method of checking logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// By tokens signed with a shared secret.
    Jwt,
    /// By the logins that RuoYi's Java nodes keep in Redis.
    SaToken,
}

/// The section `auth.jwt`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwt {
    /// The only algorithm that is accepted with the secret.
    #[serde(deserialize_with = "parsed")]
    pub algorithm: JwtAlgorithm,
    /// The shared secret, at least 32 bytes; `None` asks for a random one where there are no public keys.
    #[serde(deserialize_with = "secret")]
    pub secret: Option<Secret>,
    /// Files of public keys.
    #[serde(deserialize_with = "all_parsed")]
    pub public_keys: Vec<PublicKeyFile>,
    /// Algorithms that are accepted with public keys; empty for all that a key has.
    #[serde(deserialize_with = "all_parsed")]
    pub algorithms: Vec<PublicKeyAlgorithm>,
    /// Keys that change.
    pub jwks: Jwks,
    /// The only issuer (`iss`) whose tokens are accepted; `None` for any.
    #[serde(deserialize_with = "optional_text")]
    pub issuer: Option<String>,
    /// The audience (`aud`) that tokens have to be for; `None` for any.
    #[serde(deserialize_with = "optional_text")]
    pub audience: Option<String>,
}

/// The section `auth.jwt.jwks`: a JSON Web Key Set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwks {
    /// Its address.
    #[serde(deserialize_with = "optional_text")]
    pub url: Option<String>,
    /// Its file.
    #[serde(deserialize_with = "optional_text")]
    pub file: Option<String>,
    /// Interval between two reads, at least 1 s.
    #[serde(deserialize_with = "from_a_second")]
    pub refresh: Duration,
    /// Pause between two reads that tokens with unknown keys cause, at least 1 s.
    #[serde(deserialize_with = "from_a_second")]
    pub cooldown: Duration,
}

/// A public key's file, and its id if it has one: `file` or `id=file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeyFile {
    /// `kid` of tokens for this key.
    pub id: Option<String>,
    /// A file in PEM.
    pub file: String,
}

impl FromStr for PublicKeyFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, file) = match text.split_once('=') {
            Some((id, file)) => (Some(id.trim().to_owned()), file.trim()),
            None => (None, text),
        };
        if file.is_empty() || id.as_deref() == Some("") {
            return Err(format!("`{text}` is neither a file nor `kid=file`"));
        }
        Ok(Self { id, file: file.to_owned() })
    }
}

impl Jwt {
    /// Returns `true` if tokens of others are verified with public keys.
    pub(crate) fn has_public_keys(&self) -> bool {
        !self.public_keys.is_empty() || self.jwks.is_set()
    }
}

impl Jwks {
    /// Returns `true` if there is a set.
    pub(crate) fn is_set(&self) -> bool {
        self.url.is_some() || self.file.is_some()
    }

    fn is_in_the_clear(&self) -> bool {
        let host = self.url.as_deref().and_then(|url| url.strip_prefix("http://"));
        host.is_some_and(|host| {
            let host = host.split(['/', '?']).next().unwrap_or_default();
            let host = host
                .rsplit_once(':')
                .map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            host != "localhost" && !bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        })
    }
}

/// Someone who can log in.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    /// Recipient id of messages for this user.
    pub id: UserId,
    /// Name to log in with; not empty.
    #[serde(deserialize_with = "not_empty")]
    pub username: String,
    /// Name that other users see.
    pub name: String,
    /// Role in the demo, for instance `buyer`.
    pub role: String,
    /// An argon2 hash, complete with salt and parameters that argon2 accepts.
    #[serde(deserialize_with = "password_hash")]
    pub password: PasswordHash,
}

impl Auth {
    /// The logins of the Java nodes, in the Redis of the cluster unless they have one of their own.
    #[cfg(feature = "redis")]
    pub(crate) fn sa_token(&self, cluster: Option<&Redis>) -> SaToken {
        let mut sa_token = self.sa_token.clone().client_id(self.client_id_policy());
        sa_token.redis = sa_token.redis.or_else(|| cluster.cloned());
        sa_token
    }

    /// Policy for connections that do not name their client id.
    pub(crate) fn client_id_policy(&self) -> ClientIdPolicy {
        if self.require_client_id { ClientIdPolicy::Required } else { ClientIdPolicy::Optional }
    }

    /// Checks that Sa-Token has what it needs.
    #[cfg(feature = "redis")]
    pub(super) fn check_sa_token(&self, cluster: Option<&Redis>) -> Result<(), ConfigError> {
        if self.mode != AuthMode::SaToken {
            return Ok(());
        }
        self.sa_token(cluster).check().map_err(|error| match error {
            SaTokenConfigError::NoRedis => {
                let problem =
                    "`sa-token` reads logins from auth.saToken.redis.url, or else from redis.url; both are missing";
                ConfigError::at("auth.mode", problem)
            }
            error => ConfigError::at("auth.saToken.secret", error.to_string()),
        })
    }

    /// Checks that there is one place for the key set, and what reads it.
    pub(super) fn check_jwks(&self) -> Result<(), ConfigError> {
        let jwks = &self.jwt.jwks;
        if jwks.url.is_some() && jwks.file.is_some() {
            return Err(ConfigError::at(
                "auth.jwt.jwks.file",
                "auth.jwt.jwks.url is set, too: only one of both can be",
            ));
        }
        #[cfg(not(feature = "jwks"))]
        if jwks.url.is_some() {
            let problem = "this build reads no key sets from the web (feature `jwks`)";
            return Err(ConfigError::at("auth.jwt.jwks.url", problem));
        }
        #[cfg(feature = "jwks")]
        if let Some(url) = &jwks.url {
            realtime_core::auth::JwkUrl::new(url)
                .map_err(|error| ConfigError::at("auth.jwt.jwks.url", error.to_string()))?;
        }
        Ok(())
    }

    /// Checks that no two users share an id or a user name.
    pub(super) fn check_users(&self) -> Result<(), ConfigError> {
        for (i, user) in self.users.iter().enumerate() {
            for (j, other) in self.users[..i].iter().enumerate() {
                let taken = |field: &str, value: &dyn Display| {
                    let problem = format!("`{value}` is also auth.users[{j}].{field}");
                    Err(ConfigError::at(format!("auth.users[{i}].{field}"), problem))
                };
                if user.id == other.id {
                    return taken("id", &user.id);
                }
                if user.username == other.username {
                    return taken("username", &user.username);
                }
            }
        }
        Ok(())
    }
}

impl Auth {
    /// Warnings about settings that are allowed: passwords that are public, and logins that cannot succeed.
    pub(super) fn warning(&self, built_in_users: bool, host: &str) -> Option<String> {
        let reachable = host != "localhost" && !host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if self.mode != AuthMode::Jwt || self.jwt.has_public_keys() && self.jwt.secret.is_none() {
            None
        } else if self.users.is_empty() {
            let problem = "auth.users and auth.jwt.secret are missing: nobody can log in here, and no token from \
                           elsewhere is accepted";
            self.jwt.secret.is_none().then(|| problem.to_owned())
        } else {
            // A server of one's own: it is reachable, or shares its secret with others.
            let problem = "auth.users are the built-in ones, whose password everybody knows; with a --config file \
                           there are only those that it names";
            (built_in_users && (reachable || self.jwt.secret.is_some())).then(|| problem.to_owned())
        }
    }
}

impl Auth {
    /// Warning about keys that others could exchange on their way.
    pub(super) fn jwks_warning(&self) -> Option<String> {
        let clear = self.mode == AuthMode::Jwt && self.jwt.jwks.is_in_the_clear();
        clear.then(|| {
            "auth.jwt.jwks.url is not https://: who controls the network there can make logins for anybody".to_owned()
        })
    }
}

impl FromStr for AuthMode {
    type Err = String;

    fn from_str(mode: &str) -> Result<Self, Self::Err> {
        match mode {
            "jwt" => Ok(Self::Jwt),
            "sa-token" => Ok(Self::SaToken),
            _ => Err(format!("`{mode}` is none of: jwt, sa-token")),
        }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("username", &self.username)
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

fn hint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let hint = Option::<String>::deserialize(deserializer)?;
    Ok(hint.filter(|hint| !hint.is_empty()))
}

fn cookie<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = optional_text(deserializer)?;
    // RFC 6265, section 4.1.1.
    let is_token = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_graphic() && !br#"()<>@,;:\"/[]?={}"#.contains(&byte))
    };
    match name {
        Some(name) if !is_token(&name) => {
            Err(D::Error::custom(format_args!("`{name}` is no name of a cookie")))
        }
        name => Ok(name),
    }
}

/// Text that is not empty, or nothing.
fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    match &text {
        Some(text) if text.trim().is_empty() => {
            Err(D::Error::custom("must not be empty; leave the key out for none"))
        }
        _ => Ok(text),
    }
}

fn all_parsed<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
}

fn from_a_second<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let time: Duration = humantime_serde::deserialize(deserializer)?;
    if time < Duration::from_secs(1) {
        return Err(D::Error::custom("must be at least 1s"));
    }
    Ok(time)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let secret = Option::<Secret>::deserialize(deserializer)?;
    match &secret {
        Some(secret) if secret.len() < MIN_SECRET_BYTES => Err(D::Error::custom(format_args!(
            "must have at least {MIN_SECRET_BYTES} bytes, has {}",
            secret.len()
        ))),
        _ => Ok(secret),
    }
}

/// A password hash, checked at the start, so that an unusable one is not found at the first login only.
fn password_hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PasswordHash, D::Error> {
    let unusable = |problem: &dyn Display| D::Error::custom(format_args!("no argon2 hash: {problem}"));
    let hash = PasswordHash::new(&String::deserialize(deserializer)?).map_err(|error| unusable(&error))?;
    Algorithm::new(hash.algorithm).map_err(|error| unusable(&error))?;
    Params::try_from(&hash).map_err(|error| unusable(&error))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(unusable(&"salt or hash is missing"));
    }
    Ok(hash)
}

/// RFC 7518, section 3.2: a key at least as long as the hash, which for HS256 is 256 bits.
const MIN_SECRET_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use argon2::{Argon2, PasswordVerifier};
    use realtime_core::ruoyi::ErrorStatus;

    use crate::config::tests::{load, refused};

    #[test]
    fn the_demo_users_log_in_with_the_password_that_the_page_shows() {
        let auth = load(None, &[]).auth;
        let hint = auth.password_hint.unwrap();
        let users: Vec<_> = auth.users.iter().map(|user| (user.id.to_string(), &*user.username)).collect();
        let expected = [("1", "alice"), ("2", "bob"), ("3", "carol"), ("4", "dave")];
        assert_eq!(users, expected.map(|(id, name)| (id.to_owned(), name)));
        for user in &auth.users {
            Argon2::default().verify_password(hint.as_bytes(), &user.password).unwrap();
        }
        let mut salts: Vec<_> =
            auth.users.iter().map(|user| user.password.salt.unwrap().to_string()).collect();
        salts.dedup();
        assert_eq!(salts.len(), 4);
    }

    #[test]
    fn users_of_a_file_replace_those_of_the_reference() {
        let users = load(Some(&users(&[("u-7", "eve", HASH)])), &[]).auth.users;
        assert_eq!(users.len(), 1);
        assert_eq!(users[0].id, "u-7".parse().unwrap());
    }

    #[test]
    fn no_two_users_share_an_id_or_a_username() {
        assert_eq!(
            refused(Some(&users(&[("7", "eve", HASH), ("8", "fay", HASH), ("'7'", "gus", HASH)])), &[]),
            "auth.users[2].id (file app.yml): `7` is also auth.users[0].id"
        );
        assert_eq!(
            refused(Some(&users(&[("7", "eve", HASH), ("8", "eve", HASH)])), &[]),
            "auth.users[1].username (file app.yml): `eve` is also auth.users[0].username"
        );
    }

    #[test]
    fn a_password_that_is_no_argon2_hash_is_refused_and_not_shown() {
        for (hash, problem) in [
            ("demo", "password hash string missing field"),
            ("$2b$12$abcdefghijklmnopqrstuu", "salt too short"),
            ("$argon2id$v=19$m=8192,t=2,p=1$KOepo+H+GDh0flcOAW7y4A", "salt or hash is missing"),
            (&HASH.replace("argon2id", "scrypt"), "algorithm"),
            (&HASH.replace("m=8192", "m=1"), "m"),
        ] {
            let error = refused(Some(&users(&[("7", "eve", HASH), ("8", "fay", hash)])), &[]);
            assert!(
                error.starts_with("auth.users[1].password (file app.yml): no argon2 hash: "),
                "{hash}: {error}"
            );
            assert!(error.contains(problem), "{hash}: {error}");
            assert!(!error.contains(hash), "{error}");
        }
    }

    #[test]
    fn users_are_complete_and_have_nothing_else() {
        for (yaml, error) in [
            (
                "auth: {users: [{id: 7, username: eve, name: Eve}]}",
                "auth.users[0].role (file app.yml): missing",
            ),
            (
                "auth: {users: [{id: 7, mail: e@x}]}",
                "auth.users[0].mail (file app.yml): unknown key, expected one of `id`, `username`, `name`, `role`, `password`",
            ),
            (
                "auth: {users: [eve]}",
                "auth.users (file app.yml): expected a list whose items have keys, found a list with other items",
            ),
            (
                "auth: {users: [{id: a b, username: eve}]}",
                "auth.users[0].id (file app.yml): user id \"a b\" holds white space or a control character",
            ),
        ] {
            assert_eq!(refused(Some(yaml), &[]), error);
        }
        let error = refused(Some(&users(&[("7", "''", HASH)])), &[]);
        assert_eq!(error, "auth.users[0].username (file app.yml): must not be empty");
    }

    #[test]
    fn an_unknown_mode_or_algorithm_is_answered_with_those_there_are() {
        assert_eq!(
            refused(Some("auth: {mode: sso}"), &[]),
            "auth.mode (file app.yml): `sso` is none of: jwt, sa-token"
        );
        assert_eq!(
            refused(None, &[("REALTIME__AUTH__JWT__ALGORITHM", "none")]),
            "auth.jwt.algorithm (environment variable REALTIME__AUTH__JWT__ALGORITHM): \
             \"none\" is none of HS256, HS384, HS512"
        );
    }

    #[test]
    fn public_keys_have_a_file_and_may_have_an_id() {
        let keys = |text: &str| {
            let keys = load(None, &[("REALTIME__AUTH__JWT__PUBLICKEYS", text)]).auth.jwt.public_keys;
            keys.into_iter().map(|key| (key.id, key.file)).collect::<Vec<_>>()
        };
        let file =
            |name| format!("{}/../../crates/realtime-core/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
        let (a, b) = (file("ed25519.pub.pem"), file("p256.pub.pem"));
        assert_eq!(keys(&a), [(None, a.clone())]);
        assert_eq!(
            keys(&format!("2026={a}, {b}")),
            [(Some("2026".to_owned()), a.clone()), (None, b.clone())]
        );
        for (yaml, error) in [
            ("publicKeys: ['a=']", "publicKeys[0] (file app.yml): `a=` is neither a file nor `kid=file`"),
            (
                "algorithms: [RS256, HS256]",
                "algorithms (file app.yml): \"HS256\" is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA",
            ),
            ("jwks: {refresh: 999ms}", "jwks.refresh (file app.yml): must be at least 1s"),
            ("jwks: {file: ''}", "jwks.file (file app.yml): must not be empty; leave the key out for none"),
            #[cfg(feature = "jwks")]
            (
                "jwks: {url: 'http://a/', file: a.json}",
                "jwks.file (file app.yml): auth.jwt.jwks.url is set, too: only one of both can be",
            ),
            #[cfg(feature = "jwks")]
            (
                "jwks: {url: 'https://u:hunter2@a/'}",
                "jwks.url (file app.yml): no address of a key set: it has no host, or a user name",
            ),
        ] {
            let refused = refused(Some(&format!("auth: {{jwt: {{{yaml}}}}}")), &[]);
            assert!(
                refused.starts_with("auth.jwt.")
                    && refused.replace("[0]", "").ends_with(&error.replace("[0]", "")),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_cookie_has_a_name_that_cookies_can_have() {
        let name = |name| [("REALTIME__AUTH__COOKIE", name)];
        assert_eq!(load(None, &[]).auth.cookie, None);
        assert_eq!(load(None, &name("__Host-sid.1")).auth.cookie.as_deref(), Some("__Host-sid.1"));
        for bad in ["a=b", "a;b", "a b", "ä", "\"a\""] {
            let error = refused(None, &name(bad));
            assert!(error.ends_with(&format!("`{bad}` is no name of a cookie")), "{error}");
        }
    }

    #[cfg(feature = "jwks")]
    #[test]
    fn keys_that_come_in_the_clear_are_warned_about() {
        for (url, warned) in [
            ("http://id.example/keys", true),
            ("http://10.0.0.1:8080/keys", true),
            ("https://id.example/keys", false),
            ("http://localhost:8080/keys", false),
            ("http://127.0.0.1/keys", false),
            ("http://[::1]:1/keys", false),
        ] {
            let warnings = load(None, &[("REALTIME__AUTH__JWT__JWKS__URL", url)]).warnings;
            assert_eq!(warnings.iter().any(|warning| warning.contains("jwks.url")), warned, "{url}");
        }
    }

    #[test]
    fn the_status_of_errors_is_401_or_200() {
        let variable = "REALTIME__AUTH__ERRORSTATUS";
        assert_eq!(load(None, &[]).auth.error_status, ErrorStatus::Http);
        assert_eq!(load(Some("auth: {errorStatus: 200}"), &[]).auth.error_status, ErrorStatus::Always200);
        assert_eq!(load(None, &[(variable, "401")]).auth.error_status, ErrorStatus::Http);
        assert_eq!(
            refused(Some("auth: {errorStatus: 403}"), &[]),
            "auth.errorStatus (file app.yml): `403` is none of: 401, 200"
        );
        assert_eq!(
            refused(None, &[(variable, "-1")]),
            format!("auth.errorStatus (environment variable {variable}): `-1` is none of: 401, 200")
        );
        assert_eq!(
            refused(Some("auth: {errorStatus: ok}"), &[]),
            "auth.errorStatus (file app.yml): expected a whole number, found text"
        );
    }

    #[test]
    fn a_secret_has_at_least_32_bytes() {
        let variable = "REALTIME__AUTH__JWT__SECRET";
        assert_eq!(load(None, &[]).auth.jwt.secret, None);
        let secret = load(None, &[(variable, &"s".repeat(32))]).auth.jwt.secret;
        assert_eq!(secret.as_deref(), Some(&*"s".repeat(32)));
        for short in ["", &"s".repeat(31)] {
            let bytes = short.len();
            assert_eq!(
                refused(None, &[(variable, short)]),
                format!(
                    "auth.jwt.secret (environment variable {variable}): must have at least 32 bytes, has {bytes}"
                )
            );
        }
    }

    #[test]
    fn an_empty_hint_is_none() {
        for yaml in ["auth: {passwordHint: ''}", "auth: {passwordHint: }"] {
            assert_eq!(load(Some(yaml), &[]).auth.password_hint, None, "{yaml}");
        }
    }

    /// A file with these users: id, username and hash.
    fn users(users: &[(&str, &str, &str)]) -> String {
        let items = users.iter().map(|(id, username, hash)| {
            format!("    - {{id: {id}, username: {username}, name: N, role: r, password: '{hash}'}}\n")
        });
        format!("auth:\n  users:\n{}", items.collect::<String>())
    }

    const HASH: &str =
        "$argon2id$v=19$m=8192,t=2,p=1$KOepo+H+GDh0flcOAW7y4A$89E53bDvRgg+u9ttc8nEq3X6IMzs8w+A9rY6f1HA54Q";

    #[cfg(feature = "redis")]
    #[test]
    fn sa_token_says_what_it_lacks() {
        let mode = ("REALTIME__AUTH__MODE", "sa-token");
        let url = ("REALTIME__REDIS__URL", "redis://a/");
        let secret = ("REALTIME__AUTH__SATOKEN__SECRET", "abc");
        assert_eq!(
            refused(None, &[mode]),
            "auth.mode (environment variable REALTIME__AUTH__MODE): \
             `sa-token` reads logins from auth.saToken.redis.url, or else from redis.url; both are missing"
        );
        assert_eq!(
            refused(None, &[mode, url]),
            "auth.saToken.secret (built-in defaults): the JWT secret of Sa-Token must not be empty"
        );
        let auth = load(None, &[mode, url, secret]).auth;
        assert_eq!((auth.mode, auth.sa_token.jwt_secret.as_str()), (crate::config::AuthMode::SaToken, "abc"));
        assert!(auth.sa_token.global_prefix && !auth.sa_token.renew);
        assert!(!format!("{auth:?}").contains("abc"));
    }

    #[cfg(feature = "redis")]
    #[test]
    fn the_logins_may_be_in_another_redis_than_the_bus() {
        use realtime_redis::Topology;

        let mode = ("REALTIME__AUTH__MODE", "sa-token");
        let secret = ("REALTIME__AUTH__SATOKEN__SECRET", "abc");
        let own = ("REALTIME__AUTH__SATOKEN__REDIS__URL", "redis://logins/3");
        let bus = [("REALTIME__REDIS__URL", "redis://bus/"), ("REALTIME__REDIS__KEYPREFIX", "rt")];
        let servers = |variables: &[(&str, &str)]| {
            let config = load(None, variables);
            let redis = config.auth.sa_token(config.redis.as_ref()).redis.unwrap();
            let Topology::Single(url) = redis.topology else { panic!("{:?}", redis.topology) };
            (url, redis.key_prefix)
        };
        let of_the_bus = ("redis://bus/".to_owned(), "rt".to_owned());
        assert_eq!(servers(&[mode, secret, bus[0], bus[1]]), of_the_bus);
        assert_eq!(
            servers(&[mode, secret, own, bus[0], bus[1]]),
            ("redis://logins/3".to_owned(), String::new())
        );
        // The nodes need not meet anywhere.
        assert_eq!(servers(&[mode, secret, own]), ("redis://logins/3".to_owned(), String::new()));

        let sentinel = ("REALTIME__AUTH__SATOKEN__REDIS__TOPOLOGY", "sentinel");
        assert_eq!(
            refused(None, &[mode, secret, own, sentinel]),
            "auth.saToken.redis.nodes (built-in defaults): must name at least one URL for this topology"
        );
        assert_eq!(
            refused(None, &[mode, secret, bus[0], sentinel]),
            "auth.saToken.redis.url (built-in defaults): is missing: topology and nodes alone name no server"
        );
    }

    #[cfg(feature = "redis")]
    #[test]
    fn tokens_that_say_nothing_need_no_secret_and_styles_without_logins_in_redis_are_refused() {
        let base = [("REALTIME__AUTH__MODE", "sa-token"), ("REALTIME__REDIS__URL", "redis://a/")];
        let variable = "REALTIME__AUTH__SATOKEN__TOKENSTYLE";
        for style in ["uuid", "tik"] {
            load(None, &[base[0], base[1], (variable, style)]);
        }
        for (style, problem) in
            [("jwt-mixin", "token style `jwt-mixin` is not supported"), ("jwt", "unknown token style `jwt`")]
        {
            let error = refused(None, &[base[0], base[1], (variable, style)]);
            let start = format!("auth.saToken.tokenStyle (environment variable {variable}): {problem}");
            assert!(error.starts_with(&start), "{error}");
        }
        let error = refused(None, &[("REALTIME__AUTH__SATOKEN__ACTIVETIMEOUT", "-2")]);
        assert!(error.ends_with("must be -1, for no limit, or a number of seconds"), "{error}");
    }
}
