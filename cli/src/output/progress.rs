//! Progress of a pull or a push, as Docker prints it: one line a change of state, or lines redrawn in place on a terminal.

use std::io::Write;
use std::time::{Duration, Instant};

use image::pull::{PullEvent, Summary};

use super::words;

/// How the layers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One line for each change; download counts are left out.
    Lines,
    /// One line for each layer, redrawn in place.
    Redraw(Screen),
    Quiet,
}

/// The terminal that is drawn on. It is measured at each drawing, because its user may change its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    Stdout,
    Stderr,
    #[cfg(test)]
    Of {
        rows: usize,
        columns: usize,
    },
}

impl Screen {
    /// Rows and columns; None where it does not say, or has no room to draw on.
    fn size(self) -> Option<(usize, usize)> {
        let size = match self {
            Screen::Stdout => rustix::termios::tcgetwinsize(std::io::stdout()),
            Screen::Stderr => rustix::termios::tcgetwinsize(std::io::stderr()),
            #[cfg(test)]
            Screen::Of { rows, columns } => return Some((rows, columns)),
        };
        size.ok()
            .filter(|size| size.ws_row > 2 && size.ws_col > 2)
            .map(|size| (usize::from(size.ws_row), usize::from(size.ws_col)))
    }
}

impl Style {
    /// Drawn where there is a terminal with a size, and lines elsewhere.
    pub fn of(screen: Screen) -> Style {
        match screen.size() {
            Some(_) => Style::Redraw(screen),
            None => Style::Lines,
        }
    }
}

/// More often than this a terminal only flickers.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

pub struct Progress<'a> {
    out: &'a mut dyn Write,
    style: Style,
    layers: Vec<(String, String)>,
    drawn: usize,
    last_redraw: Option<Instant>,
    /// The last state of a layer has not been drawn: it came too soon after the one before.
    undrawn: bool,
    /// Said once the registry has answered: a pull that never began is not announced.
    heading: Option<String>,
    /// What the pull took, for stderr.
    summary: Option<Summary>,
}

impl<'a> Progress<'a> {
    pub fn new(out: &'a mut dyn Write, style: Style) -> Progress<'a> {
        Progress {
            out,
            style,
            layers: Vec::new(),
            drawn: 0,
            last_redraw: None,
            undrawn: false,
            heading: None,
            summary: None,
        }
    }

    /// Said by `pull`, not by `run`, when the name has no tag.
    pub fn default_tag(&mut self) {
        if self.style != Style::Quiet {
            self.line("Using default tag: latest");
        }
    }

    pub fn event(&mut self, event: PullEvent) {
        if self.style == Style::Quiet {
            return;
        }
        if let Some(heading) = self.heading.take() {
            self.line(&heading);
        }
        match event {
            PullEvent::Started { tag, repository } => {
                self.heading = Some(format!("{tag}: Pulling from {repository}"));
            }
            PullEvent::PullingFsLayer { layer } => self.layer(layer, "Pulling fs layer".into()),
            PullEvent::AlreadyExists { layer } => self.layer(layer, "Already exists".into()),
            PullEvent::Downloading { layer, done, total } => {
                self.moving(layer, "Downloading", done, total);
            }
            PullEvent::Extracting { layer } => self.layer(layer, "Extracting".into()),
            PullEvent::PullComplete { layer } => self.layer(layer, "Pull complete".into()),
            // It may hold what a registry said.
            PullEvent::Notice(text) => self.notice(&crate::failure::printable(&text)),
            PullEvent::Summary(summary) => self.sum_up(summary),
            PullEvent::Digest(digest) => {
                self.settle();
                self.line(&format!("Digest: {digest}"));
            }
            PullEvent::Status { newer, reference } => {
                self.settle();
                let status = match newer {
                    true => "Downloaded newer image for",
                    false => "Image is up to date for",
                };
                self.line(&format!("Status: {status} {reference}"));
            }
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.style == Style::Quiet
    }

    /// Draws the last state, before anything else is written to the same terminal.
    pub fn finish(&mut self) {
        if let Style::Redraw(_) = self.style
            && self.last_redraw.is_some()
        {
            self.redraw();
            self.last_redraw = None;
        }
    }

    /// The same where all goes on as it should, so that nothing of others stands on the screen: what is drawn is left alone.
    pub fn settle(&mut self) {
        match self.undrawn {
            true => self.finish(),
            false => self.last_redraw = None,
        }
    }

    /// Of several pulls, one after the other, what they took together.
    fn sum_up(&mut self, summary: Summary) {
        let before = self.summary.take();
        self.summary = Some(match before {
            Some(before) => Summary {
                downloaded: before.downloaded + summary.downloaded,
                unpacked: before.unpacked + summary.unpacked,
                elapsed: before.elapsed + summary.elapsed,
                cpu: before.cpu + summary.cpu,
                free: summary.free,
            },
            None => summary,
        });
    }

    /// One line for stderr: Docker's output on stdout stays as it is.
    pub fn summary(&self) -> Option<String> {
        let summary = self.summary.as_ref()?;
        Some(format!(
            "{} downloaded, {} unpacked in {:.1} s ({:.1} s of CPU time), {} free",
            words::size(summary.downloaded),
            words::size(summary.unpacked),
            summary.elapsed.as_secs_f64(),
            summary.cpu.as_secs_f64(),
            words::size(summary.free)
        ))
    }

    /// A line that stays, below the layers.
    pub fn line(&mut self, text: &str) {
        // A reader that has gone away ends us by SIGPIPE; any other failure must not end the pull.
        let _ = writeln!(self.out, "{text}");
        self.drawn = 0;
        self.layers.clear();
    }

    /// A text for whoever waits, and only for them. The layers move below it.
    pub fn notice(&mut self, text: &str) {
        match self.style {
            Style::Quiet => {}
            Style::Lines => self.line(text),
            Style::Redraw(_) => {
                let up = up(std::mem::take(&mut self.drawn));
                let _ = writeln!(self.out, "{up}\x1b[J{text}");
                if !self.layers.is_empty() {
                    self.redraw();
                }
            }
        }
    }

    /// What a layer's line says from now on, on a terminal; `last`: for good.
    pub fn state(&mut self, layer: String, state: String, last: bool) {
        let Style::Redraw(_) = self.style else {
            return;
        };
        self.set(layer, state);
        let due = self
            .last_redraw
            .is_none_or(|last| last.elapsed() >= REDRAW_EVERY);
        if due || last {
            self.redraw();
        }
    }

    /// Bytes on their way, for whoever watches; on a terminal only.
    pub fn moving(&mut self, layer: String, what: &str, done: u64, total: u64) {
        let Style::Redraw(screen) = self.style else {
            return;
        };
        let (done_text, total_text) = (words::size(done), words::size(total));
        let columns = screen.size().map_or(0, |(_, columns)| columns);
        let state = match bar_width(columns) {
            0 => {
                let text = format!("{what} {done_text}/{total_text}");
                match layer.len() + ": ".len() + text.len() > columns {
                    // What would be cut off is what changes.
                    true => format!("{}%", parts(done, total, 100)),
                    false => text,
                }
            }
            width => format!(
                "{what} {} {done_text}/{total_text}",
                bar(done, total, width)
            ),
        };
        self.state(layer, state, false);
    }

    /// A layer's new state.
    pub fn layer(&mut self, layer: String, state: String) {
        match self.style {
            Style::Redraw(_) => {
                if self.set(layer, state) {
                    self.redraw();
                }
            }
            _ => {
                let _ = writeln!(self.out, "{layer}: {state}");
            }
        }
    }

    /// Whether that is news.
    fn set(&mut self, layer: String, state: String) -> bool {
        match self.layers.iter_mut().find(|(known, _)| *known == layer) {
            Some((_, old)) if *old == state => return false,
            Some((_, old)) => *old = state,
            None => self.layers.push((layer, state)),
        }
        self.undrawn = true;
        true
    }

    /// All layers from the first line on: up, erase, write. The cursor cannot go above the screen, so of too many
    /// layers only the last are redrawn; those are the ones still under way. A line that wrapped would be two to go
    /// up by, so each is cut to the width.
    fn redraw(&mut self) {
        let Style::Redraw(screen) = self.style else {
            return;
        };
        // A terminal that has lost its size gets no more drawings than one of the usual size can take.
        let (rows, columns) = screen.size().unwrap_or((24, 80));
        let mut text = up(self.drawn);
        let skipped = self.layers.len().saturating_sub(rows - 1);
        for (layer, state) in &self.layers[skipped..] {
            let line: String = format!("{layer}: {state}").chars().take(columns).collect();
            text.push_str(&format!("\x1b[2K{line}\n"));
        }
        // What the keyboard has shown there, as `^C`, and lines of a screen that was higher.
        text.push_str("\x1b[J");
        self.drawn = self.layers.len() - skipped;
        self.last_redraw = Some(Instant::now());
        self.undrawn = false;
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

/// To the first column, and so many lines up.
fn up(lines: usize) -> String {
    match lines {
        0 => "\r".to_owned(),
        lines => format!("\r\x1b[{lines}A"),
    }
}

/// Docker's bar has 50 cells on a wide terminal, and is left out on others.
fn bar_width(columns: usize) -> u64 {
    match columns {
        111.. => 50,
        65.. => 25,
        _ => 0,
    }
}

/// How many of so many parts of the whole are done.
fn parts(done: u64, total: u64, of: u64) -> u64 {
    match total {
        0 => 0,
        total => (u128::from(done.min(total)) * u128::from(of) / u128::from(total)) as u64,
    }
}

/// `[=====>    ]`
fn bar(done: u64, total: u64, width: u64) -> String {
    let filled = parts(done, total, width);
    let cells = (0..width).map(|cell| match cell {
        _ if cell < filled => '=',
        _ if cell == filled => '>',
        _ => ' ',
    });
    format!("[{}]", cells.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<PullEvent> {
        let layer = || "0123456789ab".to_owned();
        vec![
            PullEvent::Started {
                tag: "latest".into(),
                repository: "library/redis".into(),
            },
            PullEvent::AlreadyExists {
                layer: "ffffffffffff".into(),
            },
            PullEvent::PullingFsLayer { layer: layer() },
            PullEvent::Downloading {
                layer: layer(),
                done: 500,
                total: 1000,
            },
            PullEvent::Extracting { layer: layer() },
            PullEvent::PullComplete { layer: layer() },
            PullEvent::Digest("sha256:00".into()),
            PullEvent::Status {
                newer: true,
                reference: "redis:latest".into(),
            },
        ]
    }

    fn print(style: Style) -> String {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, style);
        progress.default_tag();
        for event in events() {
            progress.event(event);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_a_terminal_each_change_is_one_line() {
        assert_eq!(
            print(Style::Lines),
            "Using default tag: latest\n\
             latest: Pulling from library/redis\n\
             ffffffffffff: Already exists\n\
             0123456789ab: Pulling fs layer\n\
             0123456789ab: Extracting\n\
             0123456789ab: Pull complete\n\
             Digest: sha256:00\n\
             Status: Downloaded newer image for redis:latest\n"
        );
    }

    #[test]
    fn what_a_pull_took_is_one_line_beside_the_output() {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, Style::Lines);
        progress.event(PullEvent::Summary(Summary {
            downloaded: 364_000_000,
            unpacked: 848_000_000,
            elapsed: Duration::from_millis(2_140),
            cpu: Duration::from_millis(3_900),
            free: 66_000_000_000,
        }));
        assert_eq!(
            progress.summary().unwrap(),
            "364MB downloaded, 848MB unpacked in 2.1 s (3.9 s of CPU time), 66GB free"
        );
        assert!(out.is_empty());
    }

    #[test]
    fn quiet_says_nothing() {
        assert_eq!(print(Style::Quiet), "");
    }

    /// What a terminal shows after the escapes have been obeyed.
    fn screen(text: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let mut row: usize = 0;
        for line in text.split_inclusive('\n') {
            let ends = line.ends_with('\n');
            let mut line = line.trim_end_matches('\n');
            loop {
                line = line.strip_prefix('\r').unwrap_or(line);
                let Some(rest) = line.strip_prefix("\x1b[") else {
                    break;
                };
                let end = rest.find(['A', 'J', 'K']).unwrap();
                if rest.as_bytes()[end] == b'J' {
                    lines.truncate(row);
                }
                if rest.as_bytes()[end] == b'A' {
                    let up: usize = rest[..end].parse().unwrap();
                    row = row.checked_sub(up).expect("the cursor stays on the screen");
                }
                line = &rest[end + 1..];
            }
            if line.is_empty() && !ends {
                continue;
            }
            if row == lines.len() {
                lines.push(String::new());
            }
            lines[row] = line.to_owned();
            row += 1;
        }
        lines
    }

    const WIDE: Style = Style::Redraw(Screen::Of {
        rows: 24,
        columns: 120,
    });

    /// What a pull of so many layers has drawn when all but the first are on their way, with a notice among them.
    fn halfway(rows: usize, columns: usize, layers: u64) -> String {
        let mut out = Vec::new();
        let style = Style::Redraw(Screen::Of { rows, columns });
        let mut progress = Progress::new(&mut out, style);
        let name = |i: u64| format!("{i:012}");
        for i in 0..layers {
            progress.event(PullEvent::PullingFsLayer { layer: name(i) });
        }
        progress.event(PullEvent::Notice("the registry wants a pause".into()));
        for i in 1..layers {
            progress.event(PullEvent::Downloading {
                layer: name(i),
                done: 1_000_000,
                total: 2_000_000,
            });
        }
        progress.finish();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_notice_stands_above_the_layers() {
        let bar = "[=========================>                        ]";
        assert_eq!(
            screen(&halfway(24, 120, 3)),
            [
                "the registry wants a pause".to_owned(),
                "000000000000: Pulling fs layer".to_owned(),
                format!("000000000001: Downloading {bar} 1MB/2MB"),
                format!("000000000002: Downloading {bar} 1MB/2MB"),
            ]
        );
    }

    #[test]
    fn lines_are_cut_to_the_width() {
        assert_eq!(
            screen(&halfway(24, 20, 2))[1..],
            ["000000000000: Pullin", "000000000001: 50%"]
        );
        assert_eq!(
            screen(&halfway(24, 60, 2))[2],
            "000000000001: Downloading 1MB/2MB"
        );
    }

    #[test]
    fn the_cursor_never_goes_above_the_screen() {
        for (rows, layers) in [(3, 10), (3, 2), (24, 127)] {
            for part in halfway(rows, 80, layers).split("\x1b[").skip(1) {
                if let Some((up, _)) = part.split_once('A')
                    && let Ok(up) = up.parse::<usize>()
                {
                    assert!(up < rows, "{up} up of {rows}");
                }
            }
        }
    }

    #[test]
    fn on_a_terminal_each_layer_keeps_one_line() {
        assert_eq!(
            screen(&print(WIDE)),
            [
                "Using default tag: latest",
                "latest: Pulling from library/redis",
                "ffffffffffff: Already exists",
                "0123456789ab: Pull complete",
                "Digest: sha256:00",
                "Status: Downloaded newer image for redis:latest",
            ]
        );
    }

    #[test]
    fn bars_fill() {
        assert_eq!(bar(0, 0, 25), "[>                        ]");
        assert_eq!(bar(500, 1000, 25), "[============>            ]");
        assert_eq!(bar(1000, 1000, 25), "[=========================]");
        assert_eq!(bar(2000, 1000, 25), "[=========================]");
    }
}
