//! Platforms: `os/arch[/variant]` as written, this host's, and the choice from an index. Pure.

use std::fmt;

use crate::error::Error;

#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// `linux/arm/v7`, `linux/amd64`, or an architecture alone.
    pub fn parse(text: &str) -> Result<Platform, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => ("", "", None),
        };
        let word =
            |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !word(os) || !word(architecture) || !variant.is_none_or(word) {
            return Err(Error::InvalidArgument {
                what: "platform",
                value: text.to_owned(),
                why: "it must be os/architecture or os/architecture/variant".to_owned(),
            });
        }
        Ok(Platform::normal(os, architecture, variant))
    }

    /// This host's.
    pub fn host() -> Platform {
        let variant = (std::env::consts::ARCH == "arm").then_some("v7");
        Platform::normal("linux", std::env::consts::ARCH, variant)
    }

    /// The names that images use, which are Go's.
    fn normal(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let (architecture, variant) = match (architecture.to_ascii_lowercase().as_str(), variant) {
            ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64".to_owned(), None),
            ("x86_64" | "x86-64", variant) => ("amd64".to_owned(), variant),
            ("aarch64" | "arm64", Some("v8") | None) => ("arm64".to_owned(), None),
            ("aarch64", variant) => ("arm64".to_owned(), variant),
            ("x86" | "i386" | "i686", _) => ("386".to_owned(), None),
            ("powerpc64le" | "powerpc64", _) => ("ppc64le".to_owned(), None),
            ("arm", None) => ("arm".to_owned(), Some("v7")),
            (other, variant) => (other.to_owned(), variant),
        };
        Platform {
            os: os.to_ascii_lowercase(),
            architecture,
            variant: variant.map(str::to_owned),
        }
    }

    /// How well `offered` serves this platform; `None` if it does not, lower is better.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        let offered = Platform::normal(
            &offered.os,
            &offered.architecture,
            offered.variant.as_deref().filter(|v| !v.is_empty()),
        );
        if (&offered.os, &offered.architecture) != (&self.os, &self.architecture) {
            return None;
        }
        let level = |v: &Option<String>| {
            v.as_deref()
                .and_then(|v| v.strip_prefix('v')?.parse::<u32>().ok())
        };
        match (level(&self.variant), level(&offered.variant)) {
            _ if self.variant == offered.variant => Some(0),
            // An older variant runs on a newer processor, as ARM v6 on v7.
            (Some(mine), Some(theirs)) => mine.checked_sub(theirs),
            // No variant is the architecture's base, which all run.
            (_, None) => Some(100),
            (None, Some(_)) => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_normalised() {
        let check = |text: &str, expect: &str| {
            assert_eq!(Platform::parse(text).unwrap().to_string(), expect);
        };
        check("linux/amd64", "linux/amd64");
        check("linux/x86_64", "linux/amd64");
        check("aarch64", "linux/arm64");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm", "linux/arm/v7");
        check("linux/amd64/v3", "linux/amd64/v3");
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/amd 64"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_best_variant_that_runs_is_preferred() {
        let rank = |mine: &str, theirs: &str| {
            Platform::parse(mine)
                .unwrap()
                .rank(&Platform::parse(theirs).unwrap())
        };
        assert_eq!(rank("linux/arm/v7", "linux/arm/v7"), Some(0));
        assert!(rank("linux/arm/v7", "linux/arm/v6") < rank("linux/arm/v7", "linux/arm/v5"));
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(rank("linux/amd64", "linux/amd64/v3"), None);
        assert_eq!(rank("linux/amd64", "linux/arm64"), None);
        assert_eq!(rank("linux/amd64", "windows/amd64"), None);
    }
}
