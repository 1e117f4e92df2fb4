//! What the mouse does.

use chadthrottle::app::{Effect, Event, keys::Place};
use crossterm::event::{KeyCode, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::host::Screen;

fn mouse(screen: &mut Screen, kind: MouseEventKind, (column, row): (u16, u16)) -> Vec<Effect> {
    screen.send(Event::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }))
}

fn click(screen: &mut Screen, at: (u16, u16)) -> Vec<Effect> {
    mouse(screen, MouseEventKind::Down(MouseButton::Left), at)
}

/// Where words stand on the screen.
fn at(screen: &Screen, words: &str) -> (u16, u16) {
    let text = screen.text();
    for (row, line) in text.lines().enumerate() {
        if let Some(byte) = line.find(words) {
            let column = line[..byte].chars().count();
            return (u16::try_from(column).expect("narrow"), u16::try_from(row).expect("low"));
        }
    }
    panic!("no {words} in\n{text}");
}

#[test]
fn a_click_selects_and_a_second_one_opens() {
    let mut screen = Screen::busy(80, 24);
    let sshd = at(&screen, "sshd");
    click(&mut screen, sshd);
    assert!(screen.selected_line().contains("sshd"), "{}", screen.text());
    assert_eq!(screen.app.place(), Place::Table);
    click(&mut screen, sshd);
    assert_eq!(screen.app.place(), Place::Details);
}

#[test]
fn a_click_on_a_heading_sorts_and_again_the_other_way() {
    let mut screen = Screen::busy(80, 24);
    let heading = at(&screen, "PROCESS");
    click(&mut screen, heading);
    assert!(screen.text().contains("PROCESS▲"), "{}", screen.text());
    click(&mut screen, heading);
    assert!(screen.text().contains("PROCESS▼"), "{}", screen.text());
}

#[test]
fn keys_in_the_footer_are_buttons() {
    let mut screen = Screen::busy(80, 24);
    let help = at(&screen, "? help");
    click(&mut screen, (help.0 + 3, help.1));
    assert_eq!(screen.app.place(), Place::Help);
    let quit = at(&screen, "q quit");
    assert_eq!(click(&mut screen, quit), [Effect::Quit]);
    assert_eq!(click(&mut screen, (79, 23)), [], "nothing is there");
}

#[test]
fn the_wheel_scrolls_and_leaves_dialogs_alone() {
    let mut screen = Screen::busy(80, 24);
    mouse(&mut screen, MouseEventKind::ScrollDown, (5, 8));
    let selected = screen.selected_line();
    assert!(selected.contains("sshd"), "three down: {selected}");
    screen.typed("u");
    mouse(&mut screen, MouseEventKind::ScrollDown, (5, 8));
    screen.key(KeyCode::Esc);
    assert_eq!(screen.selected_line(), selected);
}

#[test]
fn the_mouse_can_be_left_to_the_terminal() {
    let mut screen = Screen::busy(80, 24);
    assert_eq!(screen.typed("m"), [Effect::Mouse(false)]);
    let sshd = at(&screen, "sshd");
    click(&mut screen, sshd);
    assert!(!screen.selected_line().contains("sshd"));
    assert_eq!(screen.typed("m"), [Effect::Mouse(true)]);
}
