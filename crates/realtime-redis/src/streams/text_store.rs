//! [`TextStore`]: the account of text streams in Redis.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use realtime_core::{
    bus::{BusError, StreamHead, StreamStore, StreamWrite, StreamWritten},
    streams::StreamKey,
};
use redis::{FromRedisValue, Pipeline};
use tokio::time::timeout;

use super::{
    entry::StreamFields,
    shared::StreamsShared,
    text_scripts::{Record, head, member, parse_member},
};
use crate::error::{bus_error, is_refusal};

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
            let (members,): (Vec<String>,) = self.ask(&pipe).await?;
            self.heads_of(&members).await
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
            let (record, text): (Record, Option<String>) = self.ask(&pipe).await?;
            let text = text.unwrap_or_default();
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
            let (lost,): (Vec<String>,) = self.ask(&pipe).await?;
            Ok(lost.iter().filter_map(|member| parse_member(member)).collect())
        })
    }

    fn abandoned(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
        Box::pin(async move {
            let mut pipe = redis::pipe();
            pipe.add_command(self.0.keys.text_streams.sweep());
            let (members,): (Vec<String>,) = self.ask(&pipe).await?;
            let mut heads = self.heads_of(&members).await?;
            heads.retain(|head| head.end.is_none());
            Ok(heads)
        })
    }
}

impl TextStore {
    async fn heads_of(&self, members: &[String]) -> Result<Vec<StreamHead>, BusError> {
        let mut heads = Vec::new();
        for members in members.chunks(HEADS) {
            let mut pipe = redis::pipe();
            for member in members {
                pipe.add_command(self.0.keys.text_streams.read_head(member));
            }
            let records: Vec<Record> = self.ask(&pipe).await?;
            heads.extend(members.iter().zip(records).filter_map(|(member, record)| head(member, record)));
        }
        Ok(heads)
    }

    /// Sends requests over the connection of the publishes, within the time limit of a command.
    async fn ask<T: FromRedisValue>(&self, pipe: &Pipeline) -> Result<T, BusError> {
        let (shared, limit) = (&self.0, self.0.config.command_timeout);
        let late = || BusError::Unavailable(format!("no answer from Redis within {limit:?}"));
        let connection = timeout(limit, Box::pin(shared.master_connection())).await.map_err(|_| late())??;
        let mut requests = connection.batcher.connection();
        match timeout(limit, pipe.query_async(&mut requests)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if !is_refusal(&error) {
                    shared.connection.discard_failed(&connection, &error);
                }
                Err(bus_error(&error))
            }
            Err(_) => {
                shared.connection.discard_failed(&connection, late());
                Err(late())
            }
        }
    }
}
