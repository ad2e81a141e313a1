//! W3C trace context (<https://www.w3.org/TR/trace-context/>, version 00): read from a request or a job, made where there is
//! none, written into the jobs that follow from it.

use std::fmt;

/// The name of the HTTP header.
const HEADER: &str = "traceparent";

/// Which trace a piece of work belongs to, and which span of it caused it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    parent_id: u64,
    sampled: bool,
}

/// A trace's id as it is written: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(u128);

impl TraceContext {
    /// A new trace.
    pub fn start() -> Self {
        // Zero is "none" in the standard.
        Self { trace_id: rand::random::<u128>().max(1), parent_id: rand::random::<u64>().max(1), sampled: true }
    }

    /// The trace named by a header, or a new one if there is none or it cannot be read.
    pub fn from_header(header: Option<&str>) -> Self {
        header.and_then(Self::parse).unwrap_or_else(Self::start)
    }

    /// The trace a request belongs to, or a new one.
    pub fn from_request(headers: &http::HeaderMap) -> Self {
        Self::from_header(headers.get(HEADER).and_then(|value| value.to_str().ok()))
    }

    /// A later version than ours may say more behind a dash; the first four fields stay what they are.
    fn parse(header: &str) -> Option<Self> {
        let mut fields = header.trim().splitn(5, '-');
        let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        if version == "ff" || (version == "00" && fields.next().is_some()) {
            return None;
        }
        hexadecimal(version, 2)?;
        let (trace_id, parent_id, flags) = (hexadecimal(trace, 32)?, hexadecimal(parent, 16)?, hexadecimal(flags, 2)?);
        (trace_id != 0 && parent_id != 0).then_some(Self {
            trace_id,
            parent_id: u64::try_from(parent_id).ok()?,
            sampled: flags & 1 == 1,
        })
    }

    /// The same trace, with a new span as the parent of what follows.
    #[must_use]
    pub fn child(self) -> Self {
        Self { parent_id: rand::random::<u64>().max(1), ..self }
    }

    /// The id to search logs for.
    pub fn trace_id(self) -> TraceId {
        TraceId(self.trace_id)
    }
}

fn hexadecimal(text: &str, len: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == len && text.bytes().all(lower)).then(|| u128::from_str_radix(text, 16).ok())?
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, u8::from(self.sampled))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_comes_back_as_it_went() {
        assert_eq!(TraceContext::from_header(Some(EXAMPLE)).to_string(), EXAMPLE);
        let new = TraceContext::start();
        assert_eq!(TraceContext::from_header(Some(&new.to_string())), new);
        assert_eq!(new.child().trace_id(), new.trace_id());
        assert_ne!(new.child(), new);
    }

    #[test]
    fn what_cannot_be_read_starts_a_new_trace() {
        let wrong = [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ];
        for header in wrong {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert_eq!(TraceContext::parse(later).unwrap().to_string(), EXAMPLE);
    }
}
