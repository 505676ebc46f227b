use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_compression::{
    tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder},
    zstd::DParameter,
};
use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

/// Reads bodies, within limits. Never holds more of one than its limit, whatever is sent.
pub(crate) struct Bodies {
    bytes_max: usize,
    timeout: Duration,
    held: Arc<Held>,
}

struct Held {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// A body that was read; gives its memory back to the others when it is dropped.
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    _share: Share,
}

struct Share {
    held: Arc<Held>,
    bytes: usize,
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body has over {0} bytes (send fewer events at once)")]
    TooLarge(usize),
    #[error("content-encoding {0:?} is not known (gzip, zstd, br, or none)")]
    UnknownEncoding(String),
    #[error("the body is not what its content-encoding says: {0}")]
    Broken(String),
    #[error("the body did not come within {0:?}")]
    TimedOut(Duration),
    #[error("too many bodies are being read (send again later)")]
    Busy,
    #[error("the client hung up")]
    HungUp,
}

/// What is read on and thrown away of a body over its limit, so that the client reads the answer instead of a reset:
/// sixteen times the default limit, a second of a fast line.
const DISCARD_BYTES_MAX: usize = 128 << 20;

/// 2^23 = 8 MB: what zstd's own tool needs by default at most; a frame may ask for 2 GB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

impl Bodies {
    /// `bytes_max` for one, also when decompressed; `held_bytes_max` for all.
    pub(crate) fn new(bytes_max: usize, held_bytes_max: usize, timeout: Duration) -> Self {
        Self { bytes_max, timeout, held: Arc::new(Held { bytes: AtomicUsize::new(0), bytes_max: held_bytes_max }) }
    }

    /// Bytes held by all bodies.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.bytes.load(Ordering::Relaxed)
    }

    /// The whole body, decompressed.
    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Read, BodyError> {
        tokio::time::timeout(self.timeout, async {
            let mut stream = body.into_data_stream();
            let read = self.read_stream(headers, &mut stream).await;
            if matches!(read, Err(BodyError::TooLarge(_))) {
                discard(&mut stream).await;
            }
            read
        })
        .await
        .unwrap_or(Err(BodyError::TimedOut(self.timeout)))
    }

    async fn read_stream(&self, headers: &HeaderMap, stream: &mut BodyDataStream) -> Result<Read, BodyError> {
        let mut share = Share { held: Arc::clone(&self.held), bytes: 0 };
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > self.bytes_max) {
            return Err(BodyError::TooLarge(self.bytes_max));
        }
        let encoding = headers.get(header::CONTENT_ENCODING).map_or(Ok(""), |value| value.to_str());
        let encoding = encoding.unwrap_or("(not ASCII)").trim().to_ascii_lowercase();
        let bytes = match encoding.as_str() {
            "" | "identity" => self.collect(stream, length, &mut share).await?,
            "gzip" | "x-gzip" => {
                let mut decoder = GzipDecoder::new(self.limited(stream));
                decoder.multiple_members(true);
                self.decompress(decoder, &mut share).await?
            }
            "zstd" => {
                let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)];
                self.decompress(ZstdDecoder::with_params(self.limited(stream), &window), &mut share).await?
            }
            "br" => self.decompress(BrotliDecoder::new(self.limited(stream)), &mut share).await?,
            _ => return Err(BodyError::UnknownEncoding(encoding)),
        };
        Ok(Read { bytes, _share: share })
    }

    /// A body as it comes; in one piece without a copy.
    async fn collect(
        &self,
        stream: &mut BodyDataStream,
        length: Option<usize>,
        share: &mut Share,
    ) -> Result<Bytes, BodyError> {
        let Some(first) = stream.next().await else { return Ok(Bytes::new()) };
        let first = first.map_err(|_| BodyError::HungUp)?;
        if length == Some(first.len()) {
            share.grow(first.len())?;
            return Ok(first);
        }
        let mut all = BytesMut::new();
        let mut piece = first;
        loop {
            if all.len() + piece.len() > self.bytes_max {
                return Err(BodyError::TooLarge(self.bytes_max));
            }
            share.grow(piece.len())?;
            all.extend_from_slice(&piece);
            match stream.next().await {
                Some(next) => piece = next.map_err(|_| BodyError::HungUp)?,
                None => return Ok(all.freeze()),
            }
        }
    }

    /// `stream` up to the limit: something compressed that is longer than what it may hold decompressed is padding.
    fn limited<'a>(&self, stream: &'a mut BodyDataStream) -> impl AsyncBufRead + Unpin + 'a {
        let (mut bytes, bytes_max) = (0, self.bytes_max);
        StreamReader::new(stream.map(move |piece| {
            let piece = piece.map_err(|_| io::Error::other(Cause::HungUp))?;
            bytes += piece.len();
            if bytes > bytes_max { Err(io::Error::other(Cause::TooLarge)) } else { Ok(piece) }
        }))
    }

    async fn decompress(&self, mut decoder: impl AsyncRead + Unpin, share: &mut Share) -> Result<Bytes, BodyError> {
        let mut all = BytesMut::new();
        loop {
            all.reserve(16 << 10);
            let read = decoder.read_buf(&mut all).await.map_err(|error| {
                match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                    Some(Cause::TooLarge) => BodyError::TooLarge(self.bytes_max),
                    Some(Cause::HungUp) => BodyError::HungUp,
                    None => BodyError::Broken(error.to_string()),
                }
            })?;
            if read == 0 {
                return Ok(all.freeze());
            }
            if all.len() > self.bytes_max {
                return Err(BodyError::TooLarge(self.bytes_max));
            }
            share.grow(read)?;
        }
    }
}

/// Why a stream ended early, through the decoder's errors.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("too large")]
    TooLarge,
    #[error("hung up")]
    HungUp,
}

async fn discard(stream: &mut BodyDataStream) {
    let mut bytes = 0;
    while let Some(Ok(piece)) = stream.next().await {
        bytes += piece.len();
        if bytes > DISCARD_BYTES_MAX {
            break;
        }
    }
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), BodyError> {
        let before = self.held.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > self.held.bytes_max { Err(BodyError::Busy) } else { Ok(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
