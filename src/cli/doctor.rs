//! `ghostlight doctor`: what works on this machine, and what to do about the rest.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::backend::{self, KernelInfo};
use super::cameras::{self, Camera};
use super::error::CliError;
use super::{Outcome, model_path};

/// Check this machine: CPU, kernels, model, cameras
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  ghostlight doctor")]
pub struct Args {
    /// Model file to look for [default: as 'ghostlight detect' finds it]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
}

/// One line of the report.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// It works.
    Ok(String),
    /// It does not, and what to do.
    Warning(String),
}

/// Looks at everything and prints a line each.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let mut lines = vec![cpu(&cpu_features())];
    lines.push(kernels(&backend::kernels()));
    lines.push(model(args.model.as_deref()));
    lines.extend(camera_lines(cameras::list()));
    for line in &lines {
        match line {
            Line::Ok(text) => writeln!(out, "ok       {text}")?,
            Line::Warning(text) => writeln!(out, "warning  {text}")?,
        }
    }
    Ok(Outcome::Done)
}

fn cpu(features: &[&str]) -> Line {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let arch = std::env::consts::ARCH;
    let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    match features {
        [] => Line::Warning(format!(
            "cpu: {arch}, {cores}, without the instructions that fast int8 needs; expect it to be slow"
        )),
        features => Line::Ok(format!("cpu: {arch}, {cores}, {}", features.join(" "))),
    }
}

/// Those of this CPU's features that matter to int8 kernels.
fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("avxvnni", std::arch::is_x86_feature_detected!("avxvnni")),
        ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    let known = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let known: [(&str, bool); 0] = [];
    known.into_iter().filter(|&(_, has)| has).map(|(name, _)| name).collect()
}

fn kernels(all: &[KernelInfo]) -> Line {
    let able: Vec<&str> = all.iter().filter(|k| k.obstacle.is_none()).map(|k| k.name.as_str()).collect();
    match all.iter().find(|k| k.chosen) {
        Some(chosen) => {
            Line::Ok(format!("kernel: {} (this CPU also runs {})", chosen.name, others(&able, &chosen.name)))
        }
        None => Line::Warning("kernel: none that runs here; use '--engine reference'".into()),
    }
}

fn others(able: &[&str], chosen: &str) -> String {
    let rest: Vec<&str> = able.iter().copied().filter(|&name| name != chosen).collect();
    if rest.is_empty() { "no other".into() } else { rest.join(", ") }
}

fn model(flag: Option<&Path>) -> Line {
    match model_path::find(flag) {
        Ok(path) => Line::Ok(format!("model: {}", path.display())),
        Err(CliError::NoInput { subject, cause }) if subject == "model" => {
            Line::Warning(format!("model: {cause}"))
        }
        Err(error) => Line::Warning(format!("model: {error}")),
    }
}

fn camera_lines(found: Vec<(PathBuf, io::Result<Option<Camera>>)>) -> Vec<Line> {
    let mut lines = Vec::new();
    for (path, camera) in found {
        let path = path.display();
        match camera {
            Ok(Some(camera)) if camera.formats.is_empty() => lines.push(Line::Warning(format!(
                "camera: {path} '{}' offers no format; a camera on a ribbon cable needs rpicam-vid",
                camera.name
            ))),
            Ok(Some(camera)) => lines.push(Line::Ok(format!(
                "camera: {path} '{}': {}",
                camera.name,
                camera.formats.join("; ")
            ))),
            // A camera's metadata node, or a codec.
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => lines.push(Line::Warning(
                format!("camera: {path}: permission denied; add this user to the group 'video'"),
            )),
            Err(error) => {
                lines.push(Line::Warning(format!("camera: {path}: {error}; unplug it and plug it in")))
            }
        }
    }
    if lines.is_empty() {
        lines.push(Line::Warning("camera: none found; plug one in, or use picture files".into()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &Line) -> &str {
        match line {
            Line::Ok(text) | Line::Warning(text) => text,
        }
    }

    #[test]
    fn no_camera_is_said() {
        let lines = camera_lines(Vec::new());
        assert!(matches!(&lines[..], [Line::Warning(text)] if text.contains("none found")));
    }

    #[test]
    fn cameras_with_formats_and_faults() {
        let path = |n: u8| PathBuf::from(format!("/dev/video{n}"));
        let camera = |formats: &[&str]| Camera {
            name: "Cam".into(),
            formats: formats.iter().map(|f| f.to_string()).collect(),
        };
        let lines = camera_lines(vec![
            (path(0), Ok(Some(camera(&["MJPG 1280x720 640x480", "YUYV 640x480"])))),
            (path(1), Ok(None)),
            (path(2), Err(io::ErrorKind::PermissionDenied.into())),
            (path(3), Ok(Some(camera(&[])))),
            (path(4), Err(io::ErrorKind::NotFound.into())),
        ]);
        assert_eq!(lines.len(), 4);
        assert_eq!(text(&lines[0]), "camera: /dev/video0 'Cam': MJPG 1280x720 640x480; YUYV 640x480");
        assert!(text(&lines[1]).contains("group 'video'"));
        assert!(matches!(lines[2], Line::Warning(_)) && matches!(lines[3], Line::Warning(_)));
    }

    #[test]
    fn kernels_and_cpu() {
        let kernel = |name: &str, obstacle: Option<&str>, chosen| KernelInfo {
            name: name.into(),
            obstacle: obstacle.map(Into::into),
            chosen,
        };
        let all =
            [kernel("scalar", None, false), kernel("fast", None, true), kernel("new", Some("x"), false)];
        assert_eq!(kernels(&all), Line::Ok("kernel: fast (this CPU also runs scalar)".into()));
        assert!(matches!(kernels(&[]), Line::Warning(_)));
        assert!(matches!(cpu(&[]), Line::Warning(_)));
        assert!(text(&cpu(&["neon", "dotprod"])).ends_with("neon dotprod"));
    }
}
