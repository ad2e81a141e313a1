//! How often a webhook is tried: one retry of a failed connection, unless the URL's fragment says otherwise (twilio contract
//! page, section 5).

use super::super::ledger::Reply;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overrides {
    pub(crate) read_timeout: Duration,
    /// Over all tries.
    pub(crate) total: Duration,
    pub(crate) retries: u32,
    on: On,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct On {
    client_errors: bool,
    server_errors: bool,
    connection: bool,
    read: bool,
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            read_timeout: Duration::from_secs(15),
            total: Duration::from_secs(15),
            retries: 1,
            on: On { client_errors: false, server_errors: false, connection: true, read: false },
        }
    }
}

impl Overrides {
    /// Those of a URL.
    pub(crate) fn of(url: &str) -> Self {
        let mut overrides = Self::default();
        let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
        for (key, value) in fragment.split('&').filter_map(|pair| pair.split_once('=')) {
            let number = |least: u64, most: u64| value.parse::<u64>().ok().map(|number| number.clamp(least, most));
            match key {
                "rc" => overrides.retries = number(0, 5).map_or(overrides.retries, |count| count as u32),
                "rt" => {
                    overrides.read_timeout = number(100, 15_000).map_or(overrides.read_timeout, Duration::from_millis)
                }
                "tt" => overrides.total = number(100, 15_000).map_or(overrides.total, Duration::from_millis),
                "rp" => {
                    let says = |what: &str| value.split(',').any(|policy| policy == what || policy == "all");
                    overrides.on = On {
                        client_errors: says("4xx"),
                        server_errors: says("5xx"),
                        connection: says("ct"),
                        read: says("rt"),
                    };
                }
                _ => {}
            }
        }
        overrides
    }

    /// Whether what came back is worth another try.
    pub(crate) fn repeats(&self, reply: Reply) -> bool {
        match reply {
            Reply::Status(400..=499) => self.on.client_errors,
            Reply::Status(500..) => self.on.server_errors,
            Reply::Status(_) => false,
            Reply::Timeout => self.on.read,
            Reply::Broken => self.on.connection,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_retry_of_a_failed_connection_unless_the_url_says_otherwise() {
        let plain = Overrides::of("https://h.example/in");
        assert_eq!((plain.retries, plain.repeats(Reply::Broken), plain.repeats(Reply::Status(503))), (1, true, false));
        let eager = Overrides::of("https://h.example/in#rc=5&rp=all&tt=9000");
        assert_eq!((eager.retries, eager.total), (5, Duration::from_secs(9)));
        assert!(eager.repeats(Reply::Status(403)) && eager.repeats(Reply::Timeout));
        let some = Overrides::of("https://h.example/in#rp=5xx,rt");
        assert!(some.repeats(Reply::Status(500)) && !some.repeats(Reply::Status(404)) && !some.repeats(Reply::Broken));
    }
}
