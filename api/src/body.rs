//! Reading a request's body: whole, bounded, without copying the one piece that nearly all come in; or piece by piece.

use axum::body::{Body, BodyDataStream, Bytes};
use bytes::BytesMut;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::Instant;

/// A body that takes longer to arrive is given up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Of a body that is too large so much is still read and thrown away, because a sender that is cut off while it speaks does
/// not hear why.
const HEARD_OUT_BYTES: usize = 32 * 1024 * 1024;
const HEARD_OUT: Duration = Duration::from_secs(5);
/// Of a body taken piece by piece, no piece lets wait longer for it.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It has more bytes than allowed.
    TooLarge,
    /// It broke off, took too long, or had not the length it said.
    Broken,
}

/// A body of which the first piece has come.
pub enum Begun {
    /// That was all, as it is with nearly every webhook.
    Whole(Bytes),
    /// There is more.
    Part(Rest),
}

/// A body on its way.
pub struct Rest {
    pieces: BodyDataStream,
    first: Bytes,
    length: Option<usize>,
    limit: usize,
}

/// Waits for the first piece of a body. Up to here it costs no memory but the connection's own. `length` is what the request
/// says of the whole.
///
/// # Errors
/// See [`Unread`].
pub async fn begin(body: Body, length: Option<usize>, limit: usize) -> Result<Begun, Unread> {
    let mut pieces = body.into_data_stream();
    if length.is_some_and(|length| length > limit) {
        hear_out(pieces).await;
        return Err(Unread::TooLarge);
    }
    let first = tokio::time::timeout(TIMEOUT, next(&mut pieces)).await.unwrap_or(Err(Unread::Broken))?;
    Ok(match first {
        None => Begun::Whole(Bytes::new()),
        Some(first) if length == Some(first.len()) => Begun::Whole(first),
        Some(first) => Begun::Part(Rest { pieces, first, length, limit }),
    })
}

/// The whole body.
///
/// # Errors
/// See [`Unread`].
pub async fn read(body: Body, length: Option<usize>, limit: usize) -> Result<Bytes, Unread> {
    match begin(body, length, limit).await? {
        Begun::Whole(whole) => Ok(whole),
        Begun::Part(rest) => rest.read().await,
    }
}

impl Rest {
    /// How many bytes the whole can have, at most.
    pub fn at_most(&self) -> usize {
        self.length.unwrap_or(self.limit)
    }

    /// Reads and throws away what is still said, within limits, so that the sender hears the answer.
    pub async fn hear_out(self) {
        hear_out(self.pieces).await;
    }

    /// The whole body.
    ///
    /// # Errors
    /// See [`Unread`].
    pub async fn read(mut self) -> Result<Bytes, Unread> {
        let whole = tokio::time::timeout(TIMEOUT, self.gather()).await.unwrap_or(Err(Unread::Broken));
        if whole == Err(Unread::TooLarge) {
            hear_out(self.pieces).await;
        }
        whole
    }

    async fn gather(&mut self) -> Result<Bytes, Unread> {
        let mut whole = BytesMut::with_capacity(self.length.unwrap_or(self.first.len() * 2));
        let mut piece = Some(std::mem::take(&mut self.first));
        while let Some(bytes) = piece {
            if whole.len() + bytes.len() > self.limit {
                return Err(Unread::TooLarge);
            }
            whole.extend_from_slice(&bytes);
            drop(bytes);
            piece = next(&mut self.pieces).await?;
        }
        Ok(whole.freeze())
    }
}

/// A body that is larger than what is to be in memory of it.
pub struct Pieces {
    pieces: BodyDataStream,
    left: usize,
    until: Instant,
}

/// A body of at most `limit` bytes that comes within `time_limit`, to be taken piece by piece. `length` is what the request says
/// of the whole.
///
/// # Errors
/// If it says that it is too large.
pub async fn pieces(body: Body, length: Option<usize>, limit: usize, time_limit: Duration) -> Result<Pieces, Unread> {
    let pieces = body.into_data_stream();
    if length.is_some_and(|length| length > limit) {
        hear_out(pieces).await;
        return Err(Unread::TooLarge);
    }
    Ok(Pieces { pieces, left: limit, until: Instant::now() + time_limit })
}

impl Pieces {
    /// The next piece; `None` at the end. A call that was dropped before it answered has lost nothing.
    ///
    /// # Errors
    /// See [`Unread`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Unread> {
        let until = self.until.min(Instant::now() + PIECE_TIMEOUT);
        let piece = tokio::time::timeout_at(until, next(&mut self.pieces)).await.unwrap_or(Err(Unread::Broken))?;
        let Some(piece) = piece else { return Ok(None) };
        self.left = self.left.checked_sub(piece.len()).ok_or(Unread::TooLarge)?;
        Ok(Some(piece))
    }

    /// Reads and throws away what is still said, within limits, so that the sender hears the answer.
    pub async fn hear_out(self) {
        hear_out(self.pieces).await;
    }
}

async fn next(pieces: &mut BodyDataStream) -> Result<Option<Bytes>, Unread> {
    pieces.next().await.transpose().map_err(|_| Unread::Broken)
}

async fn hear_out(mut pieces: BodyDataStream) {
    let listen = async {
        let mut heard = 0;
        while heard < HEARD_OUT_BYTES
            && let Ok(Some(bytes)) = next(&mut pieces).await
        {
            heard += bytes.len();
        }
    };
    let _ = tokio::time::timeout(HEARD_OUT, listen).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    static MEBIBYTE: [u8; 1024 * 1024] = [b' '; 1024 * 1024];
    const LIMIT: usize = 4 * MEBIBYTE.len();

    fn body(pieces: Vec<&'static [u8]>) -> Body {
        Body::from_stream(futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)))
    }

    #[tokio::test]
    async fn a_body_is_whole_whatever_the_pieces() {
        for (pieces, length) in
            [(vec![b"{}".as_slice()], Some(2)), (vec![b"{", b"", b"}"], Some(2)), (vec![b"{", b"}"], None)]
        {
            assert_eq!(read(body(pieces), length, LIMIT).await, Ok(Bytes::from_static(b"{}")));
        }
        assert_eq!(read(body(vec![]), None, LIMIT).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn a_body_is_never_larger_than_allowed() {
        assert_eq!(read(body(vec![&MEBIBYTE; 4]), None, LIMIT).await.map(|body| body.len()), Ok(LIMIT));
        assert_eq!(read(body(vec![&MEBIBYTE; 5]), None, LIMIT).await, Err(Unread::TooLarge));
        assert_eq!(read(body(vec![b"{}"]), Some(LIMIT + 1), LIMIT).await, Err(Unread::TooLarge));
    }

    #[tokio::test]
    async fn what_comes_in_pieces_is_bounded_as_a_whole() {
        let mut taken = pieces(body(vec![b"ab", b"cd"]), None, 4, TIMEOUT).await.unwrap();
        assert_eq!(taken.next().await, Ok(Some(Bytes::from_static(b"ab"))));
        assert_eq!(taken.next().await, Ok(Some(Bytes::from_static(b"cd"))));
        assert_eq!(taken.next().await, Ok(None));
        let mut taken = pieces(body(vec![b"ab", b"cd"]), None, 3, TIMEOUT).await.unwrap();
        assert!(taken.next().await.is_ok());
        assert_eq!(taken.next().await, Err(Unread::TooLarge));
        assert_eq!(pieces(body(vec![b"ab"]), Some(4), 3, TIMEOUT).await.err(), Some(Unread::TooLarge));
    }

    #[tokio::test]
    async fn who_says_nothing_more_is_not_waited_for() {
        let silent = Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>());
        let mut taken = pieces(silent, None, LIMIT, Duration::from_millis(1)).await.unwrap();
        assert_eq!(taken.next().await, Err(Unread::Broken));
    }
}
