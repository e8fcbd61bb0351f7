//! Progress of a load, as Docker prints it: a line for each layer on a terminal, redrawn in place, and what has been loaded.

use std::io::Write;

use image::archive::load::LoadEvent;

use super::progress::{Progress, Style};

pub struct Loading<'a> {
    progress: Progress<'a>,
}

impl<'a> Loading<'a> {
    pub fn new(out: &'a mut dyn Write, style: Style) -> Loading<'a> {
        Loading {
            progress: Progress::new(out, style),
        }
    }

    pub fn event(&mut self, event: LoadEvent) {
        match event {
            LoadEvent::Layer { layer, done, total } => {
                self.progress.moving(layer, "Loading layer", done, total);
            }
            LoadEvent::Renamed { name, old } => self.say(&format!(
                "The image {name} already exists, renaming the old one with ID {old} to empty string"
            )),
            LoadEvent::Loaded { name, .. } => self.say(&format!("Loaded image: {name}")),
            LoadEvent::LoadedNameless { id } => self.say(&format!("Loaded image ID: {id}")),
            LoadEvent::Notice(text) => self.progress.notice(&text),
        }
    }

    /// Draws the last state, before anything else is written to the same terminal.
    pub fn finish(&mut self) {
        self.progress.finish();
    }

    fn say(&mut self, line: &str) {
        self.progress.finish();
        self.progress.line(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_load_says_only_what_is_there() {
        let mut out = Vec::new();
        let mut loading = Loading::new(&mut out, Style::Quiet);
        loading.event(LoadEvent::Layer {
            layer: "0123456789ab".into(),
            done: 1,
            total: 2,
        });
        loading.event(LoadEvent::Renamed {
            name: "x:1".into(),
            old: "sha256:00".into(),
        });
        loading.event(LoadEvent::Loaded {
            id: "sha256:11".into(),
            name: "x:1".into(),
        });
        loading.event(LoadEvent::LoadedNameless {
            id: "sha256:22".into(),
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "The image x:1 already exists, renaming the old one with ID sha256:00 to empty string\n\
             Loaded image: x:1\n\
             Loaded image ID: sha256:22\n"
        );
    }
}
