//! What files consist of: a head that makes each what it says, and bytes made from its id. Any piece can be made by itself.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture that can be looked at, with bytes behind its end.
    Png,
    /// A document.
    Pdf,
    /// A film.
    Mp4,
    /// A voice note.
    Ogg,
    /// A web page that says it is a picture.
    HtmlAsJpeg,
    /// A program that says it is a document.
    ProgramAsPdf,
    /// A picture of 60,000 by 60,000 pixels in a few bytes.
    Bomb,
}

impl Kind {
    /// Kinds that do no harm.
    pub const HARMLESS: [Kind; 4] = [Kind::Png, Kind::Pdf, Kind::Mp4, Kind::Ogg];

    /// What is declared of it.
    pub fn content_type(self) -> &'static str {
        match self {
            Kind::Png | Kind::Bomb => "image/png",
            Kind::Pdf | Kind::ProgramAsPdf => "application/pdf",
            Kind::Mp4 => "video/mp4",
            Kind::Ogg => "audio/ogg",
            Kind::HtmlAsJpeg => "image/jpeg",
        }
    }

    fn head(self) -> Vec<u8> {
        match self {
            Kind::Png => png(16, 16),
            Kind::Bomb => png(60_000, 60_000),
            Kind::Pdf => b"%PDF-1.4\n".to_vec(),
            Kind::Mp4 => b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41".to_vec(),
            Kind::Ogg => b"OggS\0\x02\0\0\0\0\0\0\0\0".to_vec(),
            Kind::HtmlAsJpeg => b"<!DOCTYPE html><script>alert(document.cookie)</script>".to_vec(),
            Kind::ProgramAsPdf => b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0\xb8\0\0\0\0\0\0\0".to_vec(),
        }
    }
}

/// The bytes of a file from an offset on, at most so many.
pub fn bytes(id: &str, kind: Kind, size: u64, from: u64, most: usize) -> Bytes {
    let head = kind.head();
    let seed = seed_of(id);
    let end = size.min(from.saturating_add(most as u64));
    let mut piece = Vec::with_capacity(end.saturating_sub(from) as usize + 8);
    let mut at = from;
    while at < end {
        if let Some(byte) = usize::try_from(at).ok().and_then(|at| head.get(at)) {
            piece.push(*byte);
            at += 1;
            continue;
        }
        let word = mix(seed ^ (at / 8)).to_le_bytes();
        let part = &word[(at % 8) as usize..];
        let part = &part[..part.len().min((end - at) as usize)];
        piece.extend_from_slice(part);
        at += part.len() as u64;
    }
    piece.into()
}

/// The digest of a whole file.
pub fn sha256(id: &str, kind: Kind, size: u64) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut at = 0;
    while at < size {
        let piece = bytes(id, kind, size, at, 256 * 1024);
        digest.update(&piece);
        at += piece.len() as u64;
    }
    digest.finalize().into()
}

pub(super) fn seed_of(id: &str) -> u64 {
    // FNV-1a.
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// SplitMix64's last steps.
pub(super) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A grey picture: of one that is said to be larger than 16 by 16, only the first lines are there.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let head = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(&mut png, b"IHDR", &[head, vec![8, 0, 0, 0, 0]].concat());
    // 16 lines of 16 grey pixels, each after its filter's number; stored as they are (zlib, one block).
    let lines: Vec<u8> = (0..16).flat_map(|_| [0_u8].into_iter().chain([128; 16])).collect();
    let length = lines.len() as u16;
    let mut data = vec![0x78, 0x01, 0x01];
    data.extend(length.to_le_bytes());
    data.extend((!length).to_le_bytes());
    data.extend(&lines);
    data.extend(adler(&lines).to_be_bytes());
    chunk(&mut png, b"IDAT", &data);
    chunk(&mut png, b"IEND", &[]);
    png
}

fn chunk(png: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    png.extend((data.len() as u32).to_be_bytes());
    let body = [name.as_slice(), data].concat();
    png.extend(&body);
    png.extend(crc(&body).to_be_bytes());
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn adler(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    (b << 16) | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_those_of_the_whole() {
        for kind in Kind::HARMLESS {
            let whole = bytes("a", kind, 10_000, 0, usize::MAX);
            assert_eq!(whole.len(), 10_000);
            let pieces: Vec<u8> = (0..10_000).step_by(7).flat_map(|at| bytes("a", kind, 10_000, at, 7)).collect();
            assert_eq!(pieces, whole);
            assert_eq!(sha256("a", kind, 10_000)[..], Sha256::digest(&whole)[..]);
        }
        assert_ne!(bytes("a", Kind::Pdf, 99, 0, 99), bytes("b", Kind::Pdf, 99, 0, 99));
    }
}
