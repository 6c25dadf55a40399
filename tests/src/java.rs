//! [`JavaLogins`]: logins as the Java nodes of RuoYi-Vue-Plus make, write and end them with Sa-Token.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Redis;

/// The secret that RuoYi-Vue-Plus ships.
pub const JAVA_SECRET: &str = "abcdefghijklmnopqrstuvwxyz";

/// Lifetime of a login in seconds.
const TIMEOUT: &str = "604800";

/// A Redis with Sa-Token's keys.
#[derive(Debug)]
pub struct JavaLogins {
    /// The server.
    pub redis: Redis,
    prefix: String,
}

/// Claims of a token, in the order of the Java nodes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are Sa-Token's")]
pub struct Payload {
    pub login_type: String,
    pub login_id: String,
    pub rn_str: String,
    pub clientid: String,
    pub tenant_id: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub user_id: Value,
    pub user_name: String,
    pub dept_id: i64,
    pub dept_name: String,
    pub dept_category: String,
}

impl Payload {
    /// The payload of a user's new login with the client id `web`.
    pub fn of(user: i64) -> Self {
        Self {
            login_type: "login".to_owned(),
            login_id: format!("sys_user:{user}"),
            rn_str: format!("{:032x}", rand::random::<u128>()),
            clientid: "web".to_owned(),
            tenant_id: "000000".to_owned(),
            user_id: json!(user),
            user_name: "admin".to_owned(),
            dept_id: 103,
            dept_name: "研发部门".to_owned(),
            dept_category: String::new(),
        }
    }

    /// The token.
    pub fn sign(&self) -> String {
        self.sign_with(Algorithm::HS256, JAVA_SECRET)
    }

    /// A token that is signed in another way.
    pub fn sign_with(&self, algorithm: Algorithm, secret: &str) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), self, &EncodingKey::from_secret(secret.as_bytes()))
            .unwrap()
    }
}

impl JavaLogins {
    /// A Redis without logins, of nodes with tenants and without a key prefix.
    pub async fn start() -> Self {
        Self { redis: Redis::start().await, prefix: "global:".to_owned() }
    }

    /// Sets the text in front of the keys from now on.
    pub fn prefix(&mut self, prefix: &str) {
        prefix.clone_into(&mut self.prefix);
    }

    /// A user logs in with the client id `web`, which allows half an hour of inactivity. Returns the token.
    pub fn login(&self, user: i64) -> String {
        self.keep(&Payload::of(user))
    }

    /// The keys of a login as they are written elsewhere: SET with its arguments. And the token.
    pub fn keys(payload: &Payload) -> (String, [[String; 3]; 2]) {
        let token = payload.sign();
        let name = |kind: &str| format!("global:Authorization:login:{kind}:{token}");
        let set = |kind: &str, value: &str| ["SET".to_owned(), name(kind), format!("\"{value}\"")];
        let keys = [set("token", &payload.login_id), set("last-active", &format!("{},1800", millis()))];
        (token, keys)
    }

    /// Writes the keys of a login. Returns its token.
    pub fn keep(&self, payload: &Payload) -> String {
        let token = payload.sign();
        self.set_login(&token, &payload.login_id);
        self.set_last_active(&token, &format!("{},1800", millis()));
        token
    }

    /// Writes the key that maps a token to its login.
    pub fn set_login(&self, token: &str, login: &str) {
        self.set(&self.login_key(token), login);
    }

    /// Writes the key with the time of a token's last activity and its allowed inactivity.
    pub fn set_last_active(&self, token: &str, value: &str) {
        self.set(&self.last_active_key(token), value);
    }

    /// The user logs out.
    pub fn log_out(&self, token: &str) {
        self.redis.cli(&["DEL", &self.login_key(token), &self.last_active_key(token)]);
    }

    /// An administrator ends the login.
    pub fn kick_out(&self, token: &str) {
        self.mark(token, "-5");
    }

    /// The user logs in elsewhere, and this login has to go for it.
    pub fn replace(&self, token: &str) {
        self.mark(token, "-4");
    }

    /// Marks the user as inactive for longer than allowed.
    pub fn freeze(&self, token: &str) {
        self.set_last_active(token, &format!("{},1800", millis() - 1_802_000));
    }

    /// Name of the key that maps a token to its login.
    pub fn login_key(&self, token: &str) -> String {
        format!("{}Authorization:login:token:{token}", self.prefix)
    }

    /// Name of the key with the time of a token's last activity.
    pub fn last_active_key(&self, token: &str) -> String {
        format!("{}Authorization:login:last-active:{token}", self.prefix)
    }

    /// Sa-Token keeps a mark in place of the login id until the login would have ended.
    fn mark(&self, token: &str, mark: &str) {
        self.redis.cli(&["SET", &self.login_key(token), &format!("\"{mark}\""), "KEEPTTL"]);
        self.redis.cli(&["DEL", &self.last_active_key(token)]);
    }

    /// Redisson's JSON codec puts texts into quotes.
    fn set(&self, key: &str, value: &str) {
        self.redis.cli(&["SET", key, &format!("\"{value}\""), "EX", TIMEOUT]);
    }
}

fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}
