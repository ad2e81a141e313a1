//! One keep-alive HTTP/1.1 connection that sends prepared bytes and reads just enough of the answer to know its status
//! and where it ends. Not a general client: answers must have a `Content-Length`, as those of every server measured here do.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
    closing: bool,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(4_096), closing: false })
    }

    /// Whether the server said that it closes the connection after the answer just read.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Sends one request and returns the status of its answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        loop {
            if let Some(answer) = Answer::parse(&self.answer)? {
                if self.answer.len() > answer.bytes {
                    return Err(Error::new(ErrorKind::InvalidData, "more than one answer to one request"));
                }
                if self.answer.len() == answer.bytes {
                    self.closing = answer.closes;
                    return Ok(answer.status);
                }
            }
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "connection closed before the answer ended"));
            }
        }
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    /// Head and body.
    bytes: usize,
    closes: bool,
}

impl Answer {
    /// `None` until the whole head is there.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let invalid = |what| Error::new(ErrorKind::InvalidData, what);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid("a head that is not text"))?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| invalid("no HTTP/1.1 status line"))?;
        let (mut body, mut closes) = (None, false);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body = value.trim().parse::<usize>().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                closes = value.trim().eq_ignore_ascii_case("close");
            }
        }
        let body = body.ok_or_else(|| invalid("an answer without a length"))?;
        Ok(Some(Self { status, bytes: end + 4 + body, closes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_known_by_its_length() {
        let head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\ncontent-length: 5\r\n\r\n";
        let answer = Answer::parse(head).unwrap().unwrap();
        assert_eq!(answer, Answer { status: 503, bytes: head.len() + 5, closes: false });
        assert_eq!(Answer::parse(&head[..40]).unwrap(), None);
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(
            Answer::parse(b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n")
                .unwrap()
                .unwrap()
                .closes
        );
    }
}
