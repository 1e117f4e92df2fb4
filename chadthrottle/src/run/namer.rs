//! The threads that ask for names of hosts. They are started with the first question, and a resolver that takes half a
//! minute over each holds up nobody but those who ask after it.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender, SyncSender},
    },
};

use super::{Message, spawn};
use crate::{
    app::{Event, MOST_ASKED},
    names::Names,
};

/// So many questions are asked at a time.
const THREADS: usize = 4;

/// The threads as others see them. They end when this is dropped, each with its last question.
pub(super) struct Namer {
    names: Arc<dyn Names>,
    send: Sender<Message>,
    questions: Option<SyncSender<IpAddr>>,
}

impl Namer {
    /// Nothing is started yet.
    pub(super) fn new(names: Box<dyn Names>, send: Sender<Message>) -> Self {
        Self { names: names.into(), send, questions: None }
    }

    /// Asks. Answers come as messages; what cannot be asked stays without a name.
    pub(super) fn ask(&mut self, addresses: Vec<IpAddr>) {
        if self.questions.is_none() {
            match self.start() {
                Ok(questions) => self.questions = Some(questions),
                Err(error) => return log::warn!("names of hosts are not asked for: {error:#}"),
            }
        }
        let Some(questions) = &self.questions else { return };
        for address in addresses {
            // No more than there is room for are ever on their way. This never waits.
            let _ = questions.try_send(address);
        }
    }

    fn start(&self) -> anyhow::Result<SyncSender<IpAddr>> {
        let (questions, asked) = mpsc::sync_channel(MOST_ASKED);
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..THREADS {
            let (asked, names, send) = (Arc::clone(&asked), Arc::clone(&self.names), self.send.clone());
            spawn("names", move || answer(&asked, &*names, &send))?;
        }
        Ok(questions)
    }
}

fn answer(asked: &Mutex<Receiver<IpAddr>>, names: &dyn Names, send: &Sender<Message>) {
    loop {
        // One of them waits with the lock in hand, and the others for the lock.
        let address = asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(address) = address else { return };
        let name = names.name(address);
        if send.send(Message::Event(Event::Named(address, name))).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Answers nothing until it is let go.
    struct Hangs(Mutex<Receiver<()>>);

    impl Names for Hangs {
        fn name(&self, address: IpAddr) -> Option<String> {
            let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Some(format!("host-{address}"))
        }
    }

    #[test]
    fn who_asks_never_waits_and_no_more_is_kept_than_there_is_room_for() {
        let (gate, hang) = mpsc::channel();
        let (send, messages) = mpsc::channel();
        let mut namer = Namer::new(Box::new(Hangs(Mutex::new(hang))), send);
        for half in 0..2 {
            namer.ask((0..200).map(|host| IpAddr::from([10, 0, half, host])).collect());
        }
        assert!(messages.try_recv().is_err());
        drop(gate);
        let mut answers = 0;
        while let Ok(message) = messages.recv_timeout(Duration::from_secs(20)) {
            assert!(matches!(message, Message::Event(Event::Named(_, Some(_)))), "{message:?}");
            answers += 1;
            if answers == MOST_ASKED {
                break;
            }
        }
        assert_eq!(answers, MOST_ASKED);
        // Those that were being asked at the time beside those that waited.
        drop(namer);
        assert!(messages.iter().count() <= THREADS);
    }
}
