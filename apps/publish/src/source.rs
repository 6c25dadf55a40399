//! [`Source`]: the arguments that say where Redis is.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Where Redis is: the arguments, over the variables REALTIME__REDIS__*, over the file.
#[derive(Args)]
pub(crate) struct Source {
    /// A configuration file of the nodes: its sections redis, history, retained and limits are read.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The URL of Redis (redis.url).
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// The text in front of keys and channels (redis.keyPrefix).
    #[arg(long, value_name = "P")]
    pub(crate) prefix: Option<String>,
    /// How the nodes exchange messages (redis.mode).
    #[arg(long)]
    pub(crate) mode: Option<Mode>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Mode {
    Streams,
    Pubsub,
}
