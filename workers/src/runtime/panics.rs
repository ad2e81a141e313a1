//! What a panicking thread says, for whoever is dropped by the panic and has to report it.

use std::{cell::RefCell, panic, sync::Once, thread};

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Remembers the message of each panic, besides what was done with it before.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let message = info.payload_as_str().unwrap_or("not a text");
            let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
            LAST.with_borrow_mut(|last| *last = format!("{message}{place}"));
            before(info);
        }));
    });
}

/// The message, while this thread panics.
pub(crate) fn current() -> Option<String> {
    thread::panicking().then(last)
}

/// The message of this thread's last panic.
pub(crate) fn last() -> String {
    LAST.with_borrow(Clone::clone)
}
