//! What one person and one account have said to each other so far, as far as later happenings refer to it.

use std::collections::VecDeque;

/// So many messages of a thread are referred to at most.
const REMEMBERED: usize = 8;
/// A message is edited at most so often (messenger contract page, section 2.3).
const EDITS: u32 = 5;

#[derive(Debug, Default)]
pub(super) struct Thread {
    /// Texts of the person's, and how often each was edited.
    texts: VecDeque<(String, u32)>,
    /// The last message of either side.
    last: Option<String>,
}

impl Thread {
    /// The person said something.
    pub(super) fn said(&mut self, id: &str, is_text: bool) {
        self.last = Some(id.to_owned());
        if is_text {
            self.texts.push_back((id.to_owned(), 0));
            if self.texts.len() > REMEMBERED {
                self.texts.pop_front();
            }
        }
    }

    /// The account said something.
    pub(super) fn echoed(&mut self, id: &str) {
        self.last = Some(id.to_owned());
    }

    /// The newest text, to be edited once more, and which edit it is.
    pub(super) fn edit(&mut self) -> Option<(String, u32)> {
        let (id, edits) = self.texts.iter_mut().rev().find(|(_, edits)| *edits < EDITS)?;
        *edits += 1;
        Some((id.clone(), *edits))
    }

    /// The oldest text, taken back: nothing refers to it any more.
    pub(super) fn take_back(&mut self) -> Option<String> {
        let (id, _) = self.texts.pop_front()?;
        if self.last.as_ref() == Some(&id) {
            self.last = None;
        }
        Some(id)
    }

    /// The last message.
    pub(super) fn last(&self) -> Option<String> {
        self.last.clone()
    }
}
