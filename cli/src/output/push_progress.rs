//! What a push says of itself, in Docker's words.

use image::push::PushEvent;

use super::progress::Progress;

pub fn show(progress: &mut Progress<'_>, event: PushEvent) {
    if progress.is_quiet() {
        return;
    }
    match event {
        PushEvent::Started { repository } => {
            progress.line(&format!("The push refers to repository [{repository}]"));
        }
        PushEvent::Preparing { layer } => progress.layer(layer, "Preparing".into()),
        PushEvent::Waiting { layer } => progress.layer(layer, "Waiting".into()),
        PushEvent::Pushing { layer, done, total } => {
            progress.moving(layer, "Pushing", done, total);
        }
        PushEvent::Pushed { layer } => progress.layer(layer, "Pushed".into()),
        PushEvent::AlreadyExists { layer } => progress.layer(layer, "Layer already exists".into()),
        PushEvent::Mounted { layer, from } => {
            progress.layer(layer, format!("Mounted from {from}"));
        }
        PushEvent::Digest { tag, digest, size } => {
            progress.settle();
            progress.line(&format!("{tag}: digest: {digest} size: {size}"));
        }
        PushEvent::Notice(text) => progress.notice(&crate::failure::printable(&text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::progress::{Screen, Style};

    fn print(style: Style) -> String {
        let layer = || "0123456789ab".to_owned();
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, style);
        for event in [
            PushEvent::Started {
                repository: "docker.io/me/x".into(),
            },
            PushEvent::Preparing { layer: layer() },
            PushEvent::Pushing {
                layer: layer(),
                done: 500,
                total: 1000,
            },
            PushEvent::Pushed { layer: layer() },
            PushEvent::Digest {
                tag: "1".into(),
                digest: "sha256:00".into(),
                size: 527,
            },
        ] {
            show(&mut progress, event);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_change_is_one_line_without_a_terminal_and_none_when_quiet() {
        assert_eq!(
            print(Style::Lines),
            "The push refers to repository [docker.io/me/x]\n\
             0123456789ab: Preparing\n\
             0123456789ab: Pushed\n\
             1: digest: sha256:00 size: 527\n"
        );
        assert_eq!(print(Style::Quiet), "");
        let drawn = print(Style::Redraw(Screen::Of {
            rows: 24,
            columns: 100,
        }));
        // Between the two a bar, if it is not too soon after the last drawing.
        assert!(drawn.contains("0123456789ab: Preparing"), "{drawn}");
        assert_eq!(drawn.matches("0123456789ab: Pushed").count(), 1, "{drawn}");
    }
}
