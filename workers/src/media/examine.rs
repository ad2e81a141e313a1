//! What there is to know of a file that has come, besides a picture's size: how long a recording is, and a small picture. All of it a
//! stranger's bytes, so a picture's head is read before any of the rest (`dimensions`), and what would take too much is left alone.

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage, codecs::jpeg::JpegEncoder};
use lofty::{config::ParseOptions, file::AudioFile, probe::Probe};
use shared::domain::media::MOST_PIXELS_DRAWN;
use std::{
    fs::File,
    io::{BufReader, Cursor},
    path::Path,
};

/// A thumbnail fits into a square of this side.
const THUMBNAIL_SIDE: u32 = 320;
const THUMBNAIL_QUALITY: u8 = 78;
/// Decoding takes no more memory than this, whatever a picture's head says.
const DECODING_BYTES: u64 = 160 * 1024 * 1024;

/// A picture in more bytes than this is stored, and none smaller is made of it: some formats are read whole, and may take many times
/// as long as they should.
pub(super) const MOST_BYTES_DRAWN: u64 = 16 * 1024 * 1024;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Of a recording or a film: how long it is.
    pub(super) duration_ms: Option<u64>,
    /// A small picture of it: JPEG.
    pub(super) thumbnail: Option<Vec<u8>>,
}

/// Looks at a file of this type. Blocks, and may take a second or two.
pub(super) fn examine(path: &Path, content_type: &str) -> Findings {
    let format = match content_type {
        "image/jpeg" => ImageFormat::Jpeg,
        "image/png" => ImageFormat::Png,
        "image/gif" => ImageFormat::Gif,
        "image/webp" => ImageFormat::WebP,
        _ if content_type.starts_with("audio/") || content_type.starts_with("video/") => {
            return Findings { duration_ms: duration_ms(path), ..Findings::default() };
        }
        _ => return Findings::default(),
    };
    Findings { thumbnail: draw(path, format), ..Findings::default() }
}

/// Whether a picture of this size, as its head says, is drawn.
pub(super) fn is_drawn((width, height): (u32, u32), size_bytes: u64) -> bool {
    size_bytes <= MOST_BYTES_DRAWN && u64::from(width) * u64::from(height) <= MOST_PIXELS_DRAWN
}

fn open(path: &Path, format: ImageFormat) -> Option<ImageReader<BufReader<File>>> {
    let mut reader = ImageReader::with_format(BufReader::new(File::open(path).ok()?), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODING_BYTES);
    reader.limits(limits);
    Some(reader)
}

/// A small picture, the right way up; `None` if there is nothing to be seen.
fn draw(path: &Path, format: ImageFormat) -> Option<Vec<u8>> {
    let mut decoder = open(path, format)?.into_decoder().ok()?;
    // Should it think otherwise of its size than the head.
    if !is_drawn(decoder.dimensions(), 0) {
        return None;
    }
    let orientation = decoder.orientation().ok();
    let picture = DynamicImage::from_decoder(decoder).ok()?;
    let mut small = picture.thumbnail(THUMBNAIL_SIDE.min(picture.width()), THUMBNAIL_SIDE.min(picture.height()));
    drop(picture);
    if let Some(orientation) = orientation {
        small.apply_orientation(orientation);
    }
    let mut jpeg = Cursor::new(Vec::new());
    on_white(&small).write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, THUMBNAIL_QUALITY)).ok()?;
    Some(jpeg.into_inner())
}

/// JPEG knows no transparency.
fn on_white(picture: &DynamicImage) -> RgbImage {
    let picture = picture.to_rgba8();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let [r, g, b, alpha] = picture.get_pixel(x, y).0;
        let over = |colour: u8| {
            let (colour, alpha) = (u32::from(colour), u32::from(alpha));
            u8::try_from((colour * alpha + 255 * (255 - alpha)) / 255).unwrap_or(u8::MAX)
        };
        Rgb([over(r), over(g), over(b)])
    })
}

fn duration_ms(path: &Path) -> Option<u64> {
    let options = ParseOptions::new().read_tags(false).read_cover_art(false);
    let file = Probe::open(path).ok()?.options(options).guess_file_type().ok()?.read().ok()?;
    u64::try_from(file.properties().duration().as_millis()).ok().filter(|ms| *ms > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageEncoder, Rgba, RgbaImage, codecs::png::PngEncoder};

    fn file(bytes: &[u8]) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file.into_temp_path()
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        let picture = RgbaImage::from_pixel(width, height, Rgba([200, 0, 0, 0]));
        let mut png = Vec::new();
        PngEncoder::new(&mut png).write_image(&picture, width, height, image::ExtendedColorType::Rgba8).unwrap();
        png
    }

    #[test]
    fn a_picture_is_drawn_small_on_white() {
        let found = examine(&file(&png(1000, 500)), "image/png");
        let small = image::load_from_memory(&found.thumbnail.unwrap()).unwrap().to_rgb8();
        assert_eq!(small.dimensions(), (320, 160));
        assert!(small.get_pixel(10, 10).0.iter().all(|colour| *colour > 250), "what is transparent is white");
    }

    #[test]
    fn what_is_too_large_is_not_drawn() {
        assert!(is_drawn((4000, 4000), MOST_BYTES_DRAWN));
        assert!(!is_drawn((4001, 4000), 1) && !is_drawn((1, 1), MOST_BYTES_DRAWN + 1));
        let mut bytes = png(1, 1);
        // The head of a PNG says 60,000 by 60,000, with its checksum.
        bytes[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
        let checksum = crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(examine(&file(&bytes), "image/png").thumbnail, None, "also if somebody asks for it");
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }

    #[test]
    fn what_is_no_picture_tells_nothing_and_does_no_harm() {
        let whole = png(50, 50);
        for bytes in [&b""[..], b"\x89PNG\r\n\x1a\n", &whole[..whole.len() / 2], b"GIF89a\xff\xff\xff\xff"] {
            for kind in ["image/png", "image/jpeg", "image/gif", "image/webp", "audio/mpeg", "video/mp4", "text/plain"]
            {
                let found = examine(&file(bytes), kind);
                assert!(found.thumbnail.is_none() && found.duration_ms.is_none(), "{kind} {bytes:?}");
            }
        }
    }

    #[test]
    fn a_recording_is_measured() {
        // A second of silence: WAV, 8000 samples of one byte.
        let mut wav =
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\x40\x1f\0\0".to_vec();
        wav.extend([128; 8000]);
        let size = (wav.len() as u32 - 8).to_le_bytes();
        wav[4..8].copy_from_slice(&size);
        assert_eq!(examine(&file(&wav), "audio/x-wav").duration_ms, Some(1000));
    }
}
