//! The processor, which kernels it runs, and an NVIDIA GPU.

use super::report::Line;
use crate::cli::backend::{self, KernelInfo};
use crate::engine::cuda::{CudaError, Gpu};

/// A line for the processor and one for the kernels, and one for a GPU where there is a driver for it.
pub fn look() -> Vec<Line> {
    let gpu = gpu(Gpu::open().map(|gpu| gpu.info.to_string()));
    [cpu(&cpu_features()), kernels(&backend::kernels())].into_iter().chain(gpu).collect()
}

/// Most boards have no driver, and need not be told.
fn gpu(found: Result<String, CudaError>) -> Option<Line> {
    match found {
        Ok(gpu) => Some(Line::ok("gpu", gpu)),
        Err(CudaError::NoDriver { .. }) => None,
        Err(e) => Some(Line::warning("gpu", format!("not used: {e}"))),
    }
}

fn cpu(features: &[&str]) -> Line {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let arch = std::env::consts::ARCH;
    let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    match features {
        [] => Line::warning(
            "cpu",
            format!("{arch}, {cores}, without the instructions that fast int8 needs; expect it to be slow"),
        ),
        features => Line::ok("cpu", format!("{arch}, {cores}, {}", features.join(" "))),
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
        Some(chosen) => Line::ok(
            "kernel",
            format!("{} (this CPU also runs {})", chosen.name, others(&able, &chosen.name)),
        ),
        None => Line::warning("kernel", "none that runs here; use '--engine reference'"),
    }
}

fn others(able: &[&str], chosen: &str) -> String {
    let rest: Vec<&str> = able.iter().copied().filter(|&name| name != chosen).collect();
    if rest.is_empty() { "no other".into() } else { rest.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Status;

    #[test]
    fn kernels_and_cpu() {
        let kernel = |name: &str, obstacle: Option<&str>, chosen| KernelInfo {
            name: name.into(),
            obstacle: obstacle.map(Into::into),
            chosen,
        };
        let all =
            [kernel("scalar", None, false), kernel("fast", None, true), kernel("new", Some("x"), false)];
        assert_eq!(kernels(&all), Line::ok("kernel", "fast (this CPU also runs scalar)"));
        assert_eq!(kernels(&[]).status, Status::Warning);
        assert_eq!(cpu(&[]).status, Status::Warning);
        assert!(cpu(&["neon", "dotprod"]).text.ends_with("neon dotprod"));
        assert!((2..=3).contains(&look().len()));
    }

    #[test]
    fn a_gpu_is_told_of_where_there_is_a_driver() {
        let absent = CudaError::NoDriver { tried: "libcuda.so.1".into(), cause: "absent".into() };
        assert_eq!(gpu(Err(absent)), None);
        assert_eq!(gpu(Ok("Orin (sm_87)".into())), Some(Line::ok("gpu", "Orin (sm_87)")));
        let refused = gpu(Err(CudaError::NoDevice { cause: "in use".into() })).unwrap();
        assert!(refused.status == Status::Warning && refused.text.contains("in use"), "{refused:?}");
    }
}
