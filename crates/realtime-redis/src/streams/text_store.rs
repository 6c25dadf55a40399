//! [`TextStore`]: the account of text streams in Redis.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use realtime_core::{
    bus::{BusError, StreamHead, StreamStore, StreamWrite, StreamWritten},
    streams::StreamKey,
};
use redis::{FromRedisValue, Pipeline, RedisResult};
use tokio::time::{Instant, timeout_at};

use super::{
    entry::StreamFields,
    shared::StreamsShared,
    text_scripts::{Record, head, member, parse_member},
};
use crate::{
    content::Text,
    error::{bus_error, is_refusal},
    repair::is_broken_key,
};

/// The account of text streams in Redis, beside the bus's stream.
#[derive(Debug)]
pub(super) struct TextStore(pub(super) Arc<StreamsShared>);

/// Number of records that are read in one request.
const HEADS: usize = 500;

impl StreamStore for TextStore {
    fn write<'a>(&'a self, write: &'a StreamWrite<'a>) -> BoxFuture<'a, Result<StreamWritten, BusError>> {
        Box::pin(async move {
            let envelope = write.entry.envelope();
            self.0.publish_stream(&StreamFields { write, envelope }).await
        })
    }

    fn heads(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
        Box::pin(async move {
            let mut pipe = redis::pipe();
            pipe.cmd("ZRANGE").arg(&self.0.keys.text_streams.streams).arg(0).arg(-1);
            let (members,): (Vec<Vec<u8>>,) = self.ask(&pipe, None).await?;
            Ok(self.heads_of(&members).await?.0)
        })
    }

    fn read<'a>(
        &'a self,
        key: &'a StreamKey,
    ) -> BoxFuture<'a, Result<Option<(StreamHead, String)>, BusError>> {
        Box::pin(async move {
            let (keys, member) = (&self.0.keys.text_streams, member(key));
            let mut pipe = redis::pipe();
            pipe.atomic().add_command(keys.read_head(&member)).add_command(keys.read_text(&member));
            let (record, text): (Record, Option<Vec<u8>>) = self.ask(&pipe, Some(key)).await?;
            let Ok(text) = String::from_utf8(text.unwrap_or_default()) else {
                self.skip("the text of a text stream is no text");
                return Ok(None);
            };
            Ok(head(&member, record).filter(|head| head.len == text.len() as u64).map(|head| (head, text)))
        })
    }

    fn renew<'a>(&'a self, keys: &'a [StreamKey]) -> BoxFuture<'a, Result<Vec<StreamKey>, BusError>> {
        Box::pin(async move {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let mut pipe = redis::pipe();
            pipe.add_command(self.0.keys.text_streams.renew(keys));
            let (lost,): (Vec<Text>,) = self.ask(&pipe, None).await?;
            Ok(lost.iter().filter_map(|Text(member)| parse_member(member.as_deref()?)).collect())
        })
    }

    fn abandoned(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
        Box::pin(async move {
            let mut pipe = redis::pipe();
            pipe.add_command(self.0.keys.text_streams.sweep());
            let (members,): (Vec<Vec<u8>>,) = self.ask(&pipe, None).await?;
            let (heads, mut nobodys) = self.heads_of(&members).await?;
            let (ended, heads): (Vec<_>, _) = heads.into_iter().partition(|head| head.end.is_some());
            nobodys.extend(ended.iter().map(|head| member(&head.key).into_bytes()));
            if !nobodys.is_empty() {
                // They would be found again and again, before others.
                let mut pipe = redis::pipe();
                pipe.add_command(self.0.keys.text_streams.forget(&nobodys)).ignore();
                let () = self.ask(&pipe, None).await?;
            }
            Ok(heads)
        })
    }
}

impl TextStore {
    /// Returns the heads of streams, and the members that belong to no stream, or to one that cannot be read.
    async fn heads_of(&self, members: &[Vec<u8>]) -> Result<(Vec<StreamHead>, Vec<Vec<u8>>), BusError> {
        let (mut heads, mut of_nothing) = (Vec::new(), Vec::new());
        for members in members.chunks(HEADS) {
            let names: Vec<_> =
                members.iter().map(|member| str::from_utf8(member).unwrap_or_default()).collect();
            let mut pipe = redis::pipe();
            for name in &names {
                pipe.add_command(self.0.keys.text_streams.read_head(name));
            }
            // A record of another type is one that is missing.
            pipe.ignore_errors();
            let records: Vec<RedisResult<Record>> = self.ask(&pipe, None).await?;
            for ((member, name), record) in members.iter().zip(names).zip(records) {
                match record {
                    Ok(record) => match head(name, record) {
                        Some(head) => heads.push(head),
                        None => of_nothing.push(member.clone()),
                    },
                    Err(error) if is_broken_key(&error) => of_nothing.push(member.clone()),
                    Err(error) => return Err(bus_error(&error)),
                }
            }
        }
        Ok((heads, of_nothing))
    }

    fn skip(&self, problem: &str) {
        if self.0.counters.skipped_first("a text stream", problem) {
            tracing::warn!(problem, "skipped broken content of Redis; logged once for each kind");
        }
    }

    /// Sends requests over the connection of the publishes, within the time limit of a command. Keys that turn out to be
    /// broken are begun anew: those of all text streams, and those of `key`.
    async fn ask<T: FromRedisValue>(&self, pipe: &Pipeline, key: Option<&StreamKey>) -> Result<T, BusError> {
        let (shared, limit) = (&self.0, self.0.config.command_timeout);
        let deadline = Instant::now() + limit;
        let late = || BusError::Unavailable(format!("no answer from Redis within {limit:?}"));
        let (mut repaired, mut repeated) = (false, false);
        loop {
            let connection =
                timeout_at(deadline, Box::pin(shared.master_connection())).await.map_err(|_| late())??;
            let mut requests = connection.batcher.connection();
            match timeout_at(deadline, pipe.query_async(&mut requests)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if is_broken_key(&error) && !repaired => {
                    repaired = true;
                    for repair in shared.keys.text_streams.repair(key) {
                        let removed = shared.remove_broken(&repair, &mut requests);
                        let removed = timeout_at(deadline, removed).await.map_err(|_| late())?;
                        removed.map_err(|error| bus_error(&error))?;
                    }
                }
                Ok(Err(error)) => {
                    if !is_refusal(&error) {
                        // All of this can be repeated; an idle connection may have been closed a moment ago.
                        if error.is_connection_dropped() && !repeated {
                            repeated = true;
                            shared.connection.discard(&connection);
                            continue;
                        }
                        shared.connection.discard_failed(&connection, &error);
                    }
                    return Err(bus_error(&error));
                }
                Err(_) => {
                    shared.connection.discard_failed(&connection, late());
                    return Err(late());
                }
            }
        }
    }
}
