//! The thread that answers what is asked on demand: it reads /proc and asks the kernel for sockets, and neither the engine
//! nor a key waits for that.

use std::{
    sync::mpsc::{self, Sender},
    time::Instant,
};

use super::{Message, spawn};
use crate::{
    app::Event,
    lookout::{Lookout, Question, answer},
};

/// The thread as others see it. It ends when this is dropped, and with it its last question.
pub(super) struct Looker {
    questions: Sender<Question>,
}

impl Looker {
    /// Starts it.
    pub(super) fn start(mut lookout: Box<dyn Lookout>, send: Sender<Message>) -> anyhow::Result<Self> {
        let (questions, asked) = mpsc::channel();
        spawn("looker", move || {
            let start = Instant::now();
            while let Ok(question) = asked.recv() {
                let answer = answer(lookout.as_mut(), question, start.elapsed());
                if send.send(Message::Event(Event::Answer(answer))).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions })
    }

    /// Asks. The answer comes as a message.
    pub(super) fn ask(&self, question: Question) {
        // A thread that has ended answers nothing, and what is shown says that it is not known.
        let _ = self.questions.send(question);
    }
}
