//! How large a picture is, from its head alone: a few bytes are read and nothing is decoded, whatever the rest of it is made of.

use std::{
    fs::File,
    io::{BufReader, Read, Seek},
    path::Path,
};

/// A JPEG's size stands behind other parts, of at most 64 KiB each.
const MOST_PARTS: usize = 1_000;
/// So many bytes that belong to no part are passed over.
const MOST_STRAY_BYTES: usize = 64 * 1024;

/// Width and height in pixels of a picture of this type; `None` if its head does not say.
pub(super) fn dimensions(path: &Path, content_type: &str) -> Option<(u32, u32)> {
    let mut file = BufReader::new(File::open(path).ok()?);
    match content_type {
        "image/jpeg" => jpeg(&mut file),
        "image/png" => png(&read(&mut file)?),
        "image/gif" => gif(&read(&mut file)?),
        "image/webp" => webp(&read(&mut file)?),
        _ => None,
    }
}

fn read<const N: usize>(from: &mut impl Read) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn byte(from: &mut impl Read) -> Option<u8> {
    read(from).map(|[byte]| byte)
}

fn png(head: &[u8; 24]) -> Option<(u32, u32)> {
    let (signature, rest) = head.split_first_chunk::<8>()?;
    let number = |at: usize| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    (signature == b"\x89PNG\r\n\x1a\n" && &rest[4..8] == b"IHDR").then_some((number(8)?, number(12)?))
}

fn gif(head: &[u8; 10]) -> Option<(u32, u32)> {
    let number = |at: usize| u32::from(u16::from_le_bytes([head[at], head[at + 1]]));
    head.starts_with(b"GIF8").then(|| (number(6), number(8)))
}

fn webp(head: &[u8; 30]) -> Option<(u32, u32)> {
    if !head.starts_with(b"RIFF") || &head[8..12] != b"WEBP" {
        return None;
    }
    let short = |at: usize| u32::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let three = |at: usize| short(at) | u32::from(head[at + 2]) << 16;
    match &head[12..16] {
        b"VP8X" => Some((three(24) + 1, three(27) + 1)),
        b"VP8 " => Some((short(26) & 0x3fff, short(28) & 0x3fff)),
        b"VP8L" => {
            let bits = short(21) | short(23) << 16;
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        _ => None,
    }
}

fn jpeg(file: &mut (impl Read + Seek)) -> Option<(u32, u32)> {
    if read::<2>(file)? != [0xff, 0xd8] {
        return None;
    }
    let mut strays = 0;
    for _ in 0..MOST_PARTS {
        let mut last = byte(file)?;
        let marker = loop {
            let next = byte(file)?;
            if last == 0xff && !matches!(next, 0 | 0xff) {
                break next;
            }
            last = next;
            strays += 1;
            if strays > MOST_STRAY_BYTES {
                return None;
            }
        };
        match marker {
            // These stand alone.
            0x01 | 0xd0..=0xd8 => continue,
            // The picture itself, or its end.
            0xd9 | 0xda => return None,
            _ => {}
        }
        let length = u16::from_be_bytes(read(file)?);
        // Frames; the others of these numbers are tables.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let [_, h1, h0, w1, w0] = read(file)?;
            return Some((u32::from(u16::from_be_bytes([w1, w0])), u32::from(u16::from_be_bytes([h1, h0]))));
        }
        file.seek_relative(i64::from(length.saturating_sub(2))).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, RgbImage};
    use std::io::Cursor;

    fn measured(bytes: &[u8], content_type: &str) -> Option<(u32, u32)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        dimensions(file.path(), content_type)
    }

    #[test]
    fn every_kind_of_picture_is_measured_by_its_head() {
        for (format, content_type) in [
            (ImageFormat::Jpeg, "image/jpeg"),
            (ImageFormat::Png, "image/png"),
            (ImageFormat::Gif, "image/gif"),
            (ImageFormat::WebP, "image/webp"),
        ] {
            let mut bytes = Cursor::new(Vec::new());
            if RgbImage::new(321, 123).write_to(&mut bytes, format).is_err() {
                continue; // It is only read.
            }
            assert_eq!(measured(bytes.get_ref(), content_type), Some((321, 123)), "{content_type}");
            assert_eq!(measured(&bytes.get_ref()[..9], content_type), None, "{content_type}");
        }
        let lossy = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x41\x01\x7b\0";
        assert_eq!(measured(lossy, "image/webp"), Some((321, 123)));
        let extended = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x40\x01\0\x7a\0\0";
        assert_eq!(measured(extended, "image/webp"), Some((321, 123)));
        let gif = b"GIF89a\x41\x01\x7b\0\0\0\0";
        assert_eq!(measured(gif, "image/gif"), Some((321, 123)));
    }

    #[test]
    fn a_jpeg_is_measured_behind_what_stands_before_its_size() {
        let mut bytes = b"\xff\xd8\xff\xe1\xff\xff".to_vec();
        bytes.extend([0xff; 65_533]);
        bytes.extend(b"stray\xff\xff\xff\xc2\0\x11\x08\x9c\x40\xc3\x50\x03");
        assert_eq!(measured(&bytes, "image/jpeg"), Some((50_000, 40_000)));
        assert_eq!(measured(b"\xff\xd8\xff\xda\0\x02", "image/jpeg"), None);
    }
}
