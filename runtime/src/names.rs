//! Names and IDs of containers: made up, drawn at random, and checked.

use rand::TryRngCore;
use rand::rngs::OsRng;
use rand::seq::IndexedRandom;

use crate::error::Error;

/// Weather, water and wood.
const ADJECTIVES: &str = "
    airy amber ample arctic ashen autumn balmy bobbing breezy briny bronze calm cedar chalky clear cloudy coastal cobalt
    copper coral crisp dappled dawning deep dewy downwind drifting dusky early eastern ebbing evening fair fathom floating
    foggy foamy frosty gentle glassy glowing golden hazel hazy heather homeward indigo inland ivory lapping leeward level
    lively lunar marine mellow merry mild misty moonlit mossy nimble northern oaken offshore opal outbound patient pearly
    placid polar quiet rainy reedy rippling rolling rosy russet sable salty sandy seaward sheltered shining silver sleek
    slender snowy southern spry starlit steady still sturdy summer sunlit swaying tidal tranquil trim twilight upriver
    velvet vernal wandering western wicker wild willow windward winter wooden yare
";

/// People who went far in boats and ships, or mapped where they had been.
const SURNAMES: &str = "
    aldrich amundsen andersson baffin balboa banks baret barents baudin beaufort bellingshausen bering borough bougainville
    brendan burton byron cabot cabral cano cartier cavendish champlain chancellor cheng cook crozier dampier davis diaz
    drake dumont elcano eriksson flinders fitzroy franklin frobisher gama hakluyt hanno hartog heyerdahl hillary hudson
    hurley janszoon joshua kupe laperouse lisiansky ludington magellan malaspina markham maury mawson mcclure mercator
    moitessier nansen nares nordenskiold oxley palmer parry perez piccard pinzon polo pytheas quiros ralegh ross rogers
    saris scoresby selkirk shackleton slocum solander tasman torres tupaia urdaneta vancouver vespucci waldseemuller
    weddell wilkes willoughby worsley wrangel xavier yermak zarco zheng
";

/// `misty_nansen`. Whether it is taken is for the caller to see, who draws again then.
pub fn generate(rng: &mut impl rand::Rng) -> String {
    let mut draw = |words: &str| {
        let all: Vec<&str> = words.split_whitespace().collect();
        all.choose(rng).copied().unwrap_or_default().to_owned()
    };
    let adjective = draw(ADJECTIVES);
    let surname = draw(SURNAMES);
    format!("{adjective}_{surname}")
}

/// Docker's rule and text: a letter or digit, then at least one more of those, `_`, `.` or `-`.
pub fn validate(name: &str) -> Result<(), Error> {
    if is_valid(name) {
        Ok(())
    } else {
        Err(Error::InvalidContainerName(name.to_owned()))
    }
}

/// The same rule for other things that have names.
pub(crate) fn is_valid(name: &str) -> bool {
    let (Some(first), Some(rest)) = (name.as_bytes().first(), name.as_bytes().get(1..)) else {
        return false;
    };
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    first.is_ascii_alphanumeric() && !rest.is_empty() && rest.iter().all(inner)
}

/// The digits of an ID that stand for it in lists, and as a hostname.
pub const SHORT: usize = 12;

/// 64 hexadecimal digits from the kernel's random source.
pub fn new_id() -> Result<String, Error> {
    loop {
        let mut bytes = [0_u8; 32];
        OsRng.try_fill_bytes(&mut bytes).map_err(Error::Random)?;
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // One in 300 would be a hostname of digits alone, which some programs take for an address.
        if !id.as_bytes()[..SHORT].iter().all(u8::is_ascii_digit) {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn lists_are_large_lowercase_and_without_repetition() {
        for words in [ADJECTIVES, SURNAMES] {
            let all: Vec<&str> = words.split_whitespace().collect();
            let distinct: HashSet<&&str> = all.iter().collect();
            assert_eq!(distinct.len(), all.len());
            assert!(all.len() >= 60, "{}", all.len());
            assert!(
                all.iter()
                    .all(|w| w.bytes().all(|b| b.is_ascii_lowercase()))
            );
        }
    }

    #[test]
    fn generated_names_are_valid_and_vary() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let names: HashSet<String> = (0..1000).map(|_| generate(&mut rng)).collect();
        assert!(names.len() > 900, "{}", names.len());
        assert!(names.iter().all(|name| validate(name).is_ok()));
    }

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "a.b", "A-1_.", "00"] {
            assert!(validate(good).is_ok(), "{good}");
        }
        for bad in [
            "", "x", "-ab", "_a", ".a", "a b", "ab/", "aé", "a\n", "../x",
        ] {
            assert_eq!(
                validate(bad).unwrap_err().to_string(),
                format!(
                    "Invalid container name ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
                )
            );
        }
    }

    #[test]
    fn ids_are_64_hexadecimal_digits_and_no_number_when_short() {
        let ids: HashSet<String> = (0..2000).map(|_| new_id().unwrap()).collect();
        assert_eq!(ids.len(), 2000);
        for id in ids {
            assert_eq!(id.len(), 64);
            assert!(
                id.bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            );
            assert!(id[..SHORT].parse::<u64>().is_err());
        }
    }
}
