//! Taking over the terminal, and giving it back whatever happens.

use std::{
    cell::Cell,
    io::{self, BufWriter, Stdout},
    panic,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    cursor::Show,
    event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::backend::CrosstermBackend;

use crate::sys::{signals, terminal::wake_readers};

/// Whether there is something to give back.
static ENTERED: AtomicBool = AtomicBool::new(false);
/// Whether a thread has panicked: then its words are on the screen, and nothing is drawn over them.
static PANICKED: AtomicBool = AtomicBool::new(false);
/// Held while something is drawn, so that a panic elsewhere is not told in the middle of it.
static DRAWING: Mutex<()> = Mutex::new(());

thread_local! {
    /// Whether this very thread holds [`DRAWING`].
    static DRAWS: Cell<bool> = const { Cell::new(false) };
}

/// More than a screenful of changes, so that one frame goes out in one piece.
const BUFFER: usize = 64 * 1024;

/// The terminal, while it is ours.
#[derive(Debug)]
pub(super) struct Screen(());

impl Screen {
    /// Takes it over. Pasted text comes as one event: letters of it must not be taken for commands.
    pub(super) fn enter(mouse: bool) -> io::Result<Self> {
        install_hook();
        enable_raw_mode()?;
        ENTERED.store(true, Ordering::SeqCst);
        // From here on dropping it gives the terminal back.
        let screen = Self(());
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
        set_mouse(mouse);
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// What is drawn on.
pub(super) fn backend() -> CrosstermBackend<BufWriter<Stdout>> {
    CrosstermBackend::new(BufWriter::with_capacity(BUFFER, io::stdout()))
}

/// Gives the terminal back, stops until somebody lets the program go on, and takes the terminal over again.
pub(super) fn suspend(mouse: bool) -> io::Result<()> {
    leave();
    signals::stop()?;
    enable_raw_mode()?;
    ENTERED.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
    set_mouse(mouse);
    Ok(())
}

/// Takes the mouse, or leaves it to the terminal. One that knows of no mouse does not mind.
pub(super) fn set_mouse(wanted: bool) {
    if ENTERED.load(Ordering::SeqCst) {
        let mut out = io::stdout();
        let _ = if wanted { execute!(out, EnableMouseCapture) } else { execute!(out, DisableMouseCapture) };
    }
}

/// Has keys read that came at the same instant as a new size. crossterm stops at the first of what the kernel tells it of
/// at once, and the kernel tells of each only once: they would be left until another key is pressed.
pub(super) fn read_keys_again() {
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    // Who has given the terminal back has given back its settings.
    if ENTERED.load(Ordering::SeqCst)
        && let Err(error) = wake_readers(io::stdin())
    {
        log::debug!("the terminal is gone: {error}");
    }
}

/// Draws, unless a thread has panicked.
pub(super) fn draw<T>(draw: impl FnOnce() -> T) -> Option<T> {
    /// Also when `draw` panics: by then the panic has been told.
    struct Draws;
    impl Drop for Draws {
        fn drop(&mut self) {
            DRAWS.set(false);
        }
    }

    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    if PANICKED.load(Ordering::SeqCst) {
        return None;
    }
    DRAWS.set(true);
    let _draws = Draws;
    Some(draw())
}

/// Gives the terminal back, once. Each step is tried whatever becomes of the others, and a terminal that is gone
/// needs nothing.
fn leave() {
    if ENTERED.swap(false, Ordering::SeqCst) {
        let _ =
            execute!(io::stdout(), DisableMouseCapture, DisableBracketedPaste, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Gives the terminal back before the words of a panic are printed, or they would be gone with the screen.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            {
                let _drawing = (!DRAWS.get()).then(|| DRAWING.lock().unwrap_or_else(PoisonError::into_inner));
                if ENTERED.load(Ordering::SeqCst) {
                    PANICKED.store(true, Ordering::SeqCst);
                }
                leave();
            }
            before(info);
        }));
    });
}
