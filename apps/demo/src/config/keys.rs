//! The files of public keys that `auth.jwt` names.

use std::fs;

use realtime_core::auth::JwtKey;

use super::{ConfigError, Jwt, PublicKeyFile};

impl Jwt {
    /// Reads the files of public keys.
    ///
    /// # Errors
    /// A problem for each file that cannot be used.
    pub(crate) fn load_keys(&self) -> Result<Vec<JwtKey>, Vec<ConfigError>> {
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for (n, file) in self.public_keys.iter().enumerate() {
            match self.load_key(file) {
                Ok(key) => keys.push(key),
                Err(problem) => {
                    let problem = format!("`{}`: {problem}", file.file);
                    problems.push(ConfigError::at(format!("auth.jwt.publicKeys[{n}]"), problem));
                }
            }
        }
        if let Some(file) = &self.jwks.file
            && let Err(error) = fs::File::open(file)
        {
            problems.push(ConfigError::at("auth.jwt.jwks.file", format!("`{file}`: {error}")));
        }
        if problems.is_empty() { Ok(keys) } else { Err(problems) }
    }

    fn load_key(&self, PublicKeyFile { id, file }: &PublicKeyFile) -> anyhow::Result<JwtKey> {
        let mut key = JwtKey::from_pem(&fs::read_to_string(file)?)?;
        if let Some(id) = id {
            key = key.id(id);
        }
        Ok(if self.algorithms.is_empty() { key } else { key.only(self.algorithms.iter().copied())? })
    }
}
