//! `lictor top`: a running sidecar, live in a terminal. [`model`] is what is known, [`view`] how it looks; here are the
//! stream of frames, the keys and the terminal.

mod model;
mod view;

use std::io::{BufRead, BufReader, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use lictor_core::plain;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;

use crate::cli::output::print_json;
use crate::cli::print;
use crate::cli::probe::{self, Admin, Running, encode};
use crate::term::shown;
use crate::words::in_words;
use model::{Focus, Frame, History, Model, Screen};
use view::Look;

/// A frame comes each second.
const SILENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);
/// For `--once`, where no terminal says.
const WIDTH: u16 = 120;

/// How to look.
#[derive(Args, Debug)]
pub(super) struct Top {
    /// Print one moment as plain text, and end.
    #[arg(long)]
    once: bool,
    /// With --once: as wide as this; default: COLUMNS, or 120.
    #[arg(long, requires = "once", value_parser = clap::value_parser!(u16).range(60..=500))]
    width: Option<u16>,
    #[command(flatten)]
    running: Running,
}

/// Shows until somebody has seen enough.
pub(super) fn top(asked: &Top) -> anyhow::Result<u8> {
    let admin = asked.running.admin()?;
    if asked.running.output.is_json() {
        print_json(&probe::page(&admin, "ui/data")?); // one moment: frames as they come are /ui/live
        return Ok(0);
    }
    if asked.once {
        let columns = || std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        print(&once(&admin, asked.width.or_else(columns).unwrap_or(WIDTH).clamp(60, 500))?);
        return Ok(0);
    }
    if !std::io::stdout().is_terminal() {
        bail!("standard output is not a terminal; `lictor top --once` prints one moment as text");
    }
    probe::page(&admin, "startup").or_else(|error| match error.to_string() {
        message if message.contains("does not answer") => Err(error),
        _ => Ok(serde_json::Value::Null), // it is there, and only starting
    })?;
    let mut terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let ended = run(&mut terminal, &admin);
    ratatui::restore();
    ended?;
    Ok(0)
}

/// One moment as text.
fn once(admin: &Admin, width: u16) -> anyhow::Result<String> {
    let mut model = Model::default();
    if let Some(history) = history(admin) {
        model.remember(history);
    }
    model.take(serde_json::from_value(shown(&probe::page(admin, "ui/data")?))?, Instant::now());
    let area = Rect::new(0, 0, width, view::height(&model));
    let mut buffer = Buffer::empty(area);
    view::draw(&model, Look { has_colour: false, is_live: false }, Instant::now(), area, &mut buffer);
    let lines = buffer.content().chunks(width.into()).map(|row| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    let text: String = lines.collect();
    Ok(text.trim_end().to_owned() + "\n")
}

/// What happens.
enum News {
    Frame(Box<Frame>),
    /// What was before.
    History(History),
    /// No frames, and why.
    Lost(String),
    Input(Event),
    /// The terminal is gone.
    Closed,
}

fn run(terminal: &mut ratatui::DefaultTerminal, admin: &Admin) -> anyhow::Result<()> {
    let news = listen(admin.clone());
    let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let look = Look { has_colour, is_live: true };
    let mut model = Model::default();
    loop {
        terminal.draw(|frame| view::draw(&model, look, Instant::now(), frame.area(), frame.buffer_mut()))?;
        match news.recv_timeout(AGAIN) {
            Ok(News::Frame(frame)) => model.take(*frame, Instant::now()),
            Ok(News::History(history)) => model.remember(history),
            Ok(News::Lost(why)) => model.trouble = Some(why),
            Ok(News::Input(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                if !press(&mut model, key, admin) {
                    return Ok(());
                }
            }
            // Another size is drawn by the next turn; so is the age of the last frame.
            Ok(News::Input(_)) | Err(RecvTimeoutError::Timeout) => (),
            Ok(News::Closed) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Frames from one thread, keys from another. Both end with the process.
fn listen(admin: Admin) -> Receiver<News> {
    let (sender, news) = channel();
    let keys = sender.clone();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if keys.send(News::Input(event)).is_err() {
                return;
            }
        }
        let _ = keys.send(News::Closed);
    });
    std::thread::spawn(move || {
        loop {
            let why = match follow(&admin, &sender) {
                Ok(()) => "the sidecar has ended the stream".to_owned(),
                Err(error) => plain::line(&format!("{error:#}")).into_owned(),
            };
            if sender.send(News::Lost(why)).is_err() {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "a thread of a command without a runtime")]
            std::thread::sleep(AGAIN);
        }
    });
    news
}

/// What was while nobody looked; a sidecar that is older than this command keeps none.
fn history(admin: &Admin) -> Option<History> {
    serde_json::from_value(shown(&probe::page(admin, "history?since=4m").ok()?)).ok()
}

fn follow(admin: &Admin, news: &Sender<News>) -> anyhow::Result<()> {
    let stream = probe::send(admin, "GET", "ui/live")?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut lines = BufReader::new(stream).lines();
    let status = lines.next().transpose()?.unwrap_or_default();
    if !status.contains(" 200 ") {
        bail!("http://{admin}/ui/live answers {}", status.trim_start_matches("HTTP/1.1 "));
    }
    if let Some(history) = history(admin) {
        news.send(News::History(history))?;
    }
    for line in lines {
        // Chunked framing is between the lines: an event's data is one line.
        if let Some(data) = line?.strip_prefix("data: ") {
            news.send(News::Frame(Box::new(serde_json::from_value(shown(&serde_json::from_str(data)?))?)))?;
        }
    }
    Ok(())
}

/// False: enough.
fn press(model: &mut Model, key: KeyEvent, admin: &Admin) -> bool {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return false;
    }
    if model.is_typing {
        type_filter(model, key.code);
        return true;
    }
    match key.code {
        KeyCode::Char('q') if model.screen == Screen::All => return false,
        KeyCode::Esc if model.screen == Screen::All => model.filter.clear(),
        KeyCode::Char('q') | KeyCode::Esc | KeyCode::Backspace => model.screen = Screen::All,
        KeyCode::Char('?' | 'h') => model.screen = Screen::Help,
        KeyCode::Char('p' | ' ') => model.is_paused = !model.is_paused,
        KeyCode::Char('s') => model.sort = model.sort.next(),
        KeyCode::Char('/') => {
            (model.screen, model.is_typing) = (Screen::All, true);
            model.filter.clear();
        }
        KeyCode::Up | KeyCode::Char('k') => model.step(-1),
        KeyCode::Down | KeyCode::Char('j') => model.step(1),
        KeyCode::PageUp => model.step(-10),
        KeyCode::PageDown => model.step(10),
        KeyCode::Tab | KeyCode::BackTab | KeyCode::Left | KeyCode::Right => {
            model.focus = if model.focus == Focus::Upstreams { Focus::Failures } else { Focus::Upstreams };
        }
        KeyCode::Enter if model.focus == Focus::Upstreams => model.screen = Screen::Upstream,
        KeyCode::Enter => model.screen = Screen::Story(story(model, admin), 0),
        _ => (),
    }
    true
}

fn type_filter(model: &mut Model, code: KeyCode) {
    match code {
        KeyCode::Enter | KeyCode::Down => model.is_typing = false,
        KeyCode::Esc => {
            model.is_typing = false;
            model.filter.clear();
        }
        KeyCode::Backspace => drop(model.filter.pop()),
        KeyCode::Char(letter) => model.filter.extend(letter.to_lowercase()),
        _ => (),
    }
}

/// The chosen failure's, as `lictor explain` tells it.
fn story(model: &Model, admin: &Admin) -> Vec<String> {
    let Some(failure) = model.chosen_failure() else { return vec!["There is no failure to tell of.".to_owned()] };
    let page = probe::page(admin, &format!("requests/{}", encode(&failure.id)));
    let text = page.map_or_else(|error| plain::line(&format!("{error:#}")).into_owned(), |page| in_words(&page));
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(model: &mut Model, keys: &[KeyCode]) -> bool {
        let nobody = Admin::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        keys.iter().all(|code| press(model, KeyEvent::new(*code, KeyModifiers::NONE), &nobody))
    }

    #[test]
    fn q_goes_back_before_it_ends() {
        let mut model = Model::default();
        assert!(pressed(&mut model, &[KeyCode::Char('?'), KeyCode::Char('q')]));
        assert_eq!(model.screen, Screen::All);
        assert!(!pressed(&mut model, &[KeyCode::Char('q')]));
    }

    #[test]
    fn letters_are_the_filters_while_it_is_typed() {
        let mut model = Model::default();
        assert!(pressed(&mut model, &[KeyCode::Char('/'), KeyCode::Char('Q'), KeyCode::Char('p'), KeyCode::Enter]));
        assert_eq!((model.filter.as_str(), model.is_typing, model.is_paused), ("qp", false, false));
        pressed(&mut model, &[KeyCode::Esc, KeyCode::Char('p')]);
        assert_eq!((model.filter.as_str(), model.is_paused), ("", true));
    }
}
