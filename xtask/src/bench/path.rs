//! Paths between the hosts, as they are asked for.

use std::time::Duration;

use testbed::{Testbed, path::Path};

/// A path and how it was asked for.
#[derive(Clone, Debug)]
pub(super) struct NamedPath {
    pub(super) name: String,
    /// Of a router alone it is next to nothing.
    pub(super) round_trip: Duration,
    loss: f64,
    is_direct: bool,
}

impl NamedPath {
    /// A bed with this path, and its loss in the direction of the data. It counts what passes.
    pub(super) fn bed(&self, is_upload: bool) -> anyhow::Result<Testbed> {
        if self.is_direct {
            return Testbed::counted("bench");
        }
        let mut path = Path::round_trip(self.round_trip);
        let link = if is_upload { &mut path.to_server } else { &mut path.to_client };
        link.loss = self.loss;
        Testbed::with_path("bench", &path)
    }
}

/// `direct`, which is a router and nothing else; or a round trip in milliseconds, and a percentage of loss after a slash.
pub(super) fn parse_path(typed: &str) -> Result<NamedPath, String> {
    if typed == "direct" {
        return Ok(NamedPath {
            name: typed.to_owned(),
            round_trip: Duration::ZERO,
            loss: 0.0,
            is_direct: true,
        });
    }
    let (trip, loss) = typed.split_once('/').unwrap_or((typed, "0"));
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| (0.0..=10_000.0).contains(number));
    match (number(trip), number(loss)) {
        (Some(trip), Some(loss)) if loss < 100.0 => Ok(NamedPath {
            name: if loss > 0.0 { format!("{trip} ms, {loss} % loss") } else { format!("{trip} ms") },
            round_trip: Duration::from_secs_f64(trip / 1e3),
            loss: loss / 100.0,
            is_direct: false,
        }),
        _ => Err(format!(
            "{typed:?} is no path; give \"direct\", or milliseconds, and a percentage after a slash: 20/0.5"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let path = parse_path("20/0.5").expect("as in the help");
        assert_eq!((path.round_trip, path.name.as_str()), (Duration::from_millis(20), "20 ms, 0.5 % loss"));
        assert!((path.loss - 0.005).abs() < 1e-9 && !path.is_direct);
        assert!(parse_path("direct").is_ok_and(|path| path.is_direct && path.name == "direct"));
        assert!(parse_path("fast").is_err() && parse_path("20/200").is_err());
    }
}
