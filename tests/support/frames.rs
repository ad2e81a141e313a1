//! As much of AMQP 0-9-1's framing as a relay needs: where frames begin and end, which belong to a delivery, and a few frames
//! that a broker says only in trouble. (Specification 0-9-1, sections 2.3.5 and 4.2.3.)

use bytes::{BufMut, Bytes, BytesMut};
use std::collections::HashSet;

const METHOD: u8 = 1;
const FRAME_END: u8 = 0xCE;
/// Type, channel, size; and the end mark.
const OVERHEAD: usize = 7 + 1;

/// Cuts a stream of bytes into frames.
#[derive(Default)]
pub struct Frames {
    buffer: BytesMut,
    /// Channels on which the content of a delivery is under way.
    delivering: HashSet<u16>,
}

/// A whole frame.
pub struct Frame {
    /// As it was sent.
    pub bytes: Bytes,
    /// Whether it is a `basic.deliver` or part of its content.
    pub is_delivery: bool,
}

impl Frames {
    /// Where to put what was read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Takes the next whole frame out.
    #[allow(clippy::should_implement_trait, reason = "more may come after None")]
    pub fn next(&mut self) -> Option<Frame> {
        let size: [u8; 4] = self.buffer.get(3..7)?.try_into().ok()?;
        let whole = OVERHEAD + usize::try_from(u32::from_be_bytes(size)).ok()?;
        if self.buffer.len() < whole {
            return None;
        }
        let bytes = self.buffer.split_to(whole).freeze();
        let channel = u16::from_be_bytes([bytes[1], bytes[2]]);
        if bytes[0] == METHOD {
            match is_method(&bytes, 60, 60) {
                true => self.delivering.insert(channel),
                false => self.delivering.remove(&channel),
            };
        }
        Some(Frame { is_delivery: self.delivering.contains(&channel), bytes })
    }
}

fn is_method(frame: &[u8], class: u16, method: u16) -> bool {
    frame.get(7..11) == Some([class.to_be_bytes(), method.to_be_bytes()].concat().as_slice())
}

/// `connection.blocked`: the broker is short of something and reads no more.
pub fn blocked(reason: &str) -> Bytes {
    let length = u8::try_from(reason.len()).expect("a short reason");
    connection_method(60, &[&[length], reason.as_bytes()].concat())
}

/// `connection.unblocked`.
pub fn unblocked() -> Bytes {
    connection_method(61, &[])
}

fn connection_method(method: u16, arguments: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(METHOD);
    frame.put_u16(0);
    frame.put_u32(u32::try_from(4 + arguments.len()).expect("a short frame"));
    frame.put_u16(10);
    frame.put_u16(method);
    frame.put_slice(arguments);
    frame.put_u8(FRAME_END);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_in_pieces() {
        let whole = [blocked("low on memory"), unblocked()].concat();
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for byte in whole {
            frames.buffer().put_u8(byte);
            found.extend(frames.next().map(|frame| frame.bytes));
        }
        assert_eq!(found, [blocked("low on memory"), unblocked()]);
    }
}
