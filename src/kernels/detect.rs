//! Which kernels are compiled in, which of them run here, and which is best.
//!
//! Test: `kernels::tests::detection`.

#[cfg(target_arch = "x86_64")]
use super::x86_avx2::{Avx2, AvxVnni};
#[cfg(target_arch = "x86_64")]
use super::x86_vnni::Avx512Vnni;
use super::{Kernels, scalar::Scalar};
#[cfg(target_arch = "aarch64")]
use super::{arm_dotprod::NeonDotprod, arm_i8mm::NeonI8mm, arm_neon::Neon};

/// A kernel that is compiled in.
#[derive(Debug)]
pub struct Candidate {
    /// Its name, as `--kernel` takes it.
    pub name: &'static str,
    /// What the CPU must have, for a message.
    pub needs: &'static str,
    /// The kernel, if the CPU can run it.
    pub kernels: Option<&'static dyn Kernels>,
}

impl Candidate {
    /// Why it does not run here, if it does not.
    pub fn obstacle(&self) -> Option<String> {
        self.kernels.is_none().then(|| format!("this CPU lacks {}", self.needs))
    }
}

/// A kernel was named that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KernelError {
    /// Not compiled in.
    #[error("no kernel `{name}` in this program; it has {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// All names, with commas.
        known: String,
    },
    /// Compiled in, but the CPU cannot run it.
    #[error("kernel `{name}` does not run here: this CPU lacks {needs}")]
    NotHere {
        /// What was asked for.
        name: &'static str,
        /// What the CPU must have.
        needs: &'static str,
    },
}

fn candidate<K: Kernels + Copy + 'static>(
    name: &'static str,
    needs: &'static str,
    kernels: Option<K>,
) -> Candidate {
    // Once per process and kernel at most a few bytes (kernels have no fields): a `Box` of nothing.
    Candidate { name, needs, kernels: kernels.map(|k| Box::leak(Box::new(k)) as &'static dyn Kernels) }
}

/// Every kernel that is compiled in, best first; `scalar`, which always runs, is last.
pub fn all() -> Vec<Candidate> {
    vec![
        #[cfg(target_arch = "x86_64")]
        candidate("avx512-vnni", Avx512Vnni::NEEDS, Avx512Vnni::new()),
        #[cfg(target_arch = "x86_64")]
        candidate("avx-vnni", AvxVnni::NEEDS, AvxVnni::new()),
        #[cfg(target_arch = "x86_64")]
        candidate("avx2", Avx2::NEEDS, Avx2::new()),
        #[cfg(target_arch = "aarch64")]
        candidate("neon-i8mm", NeonI8mm::NEEDS, NeonI8mm::new()),
        #[cfg(target_arch = "aarch64")]
        candidate("neon-dotprod", NeonDotprod::NEEDS, NeonDotprod::new()),
        #[cfg(target_arch = "aarch64")]
        candidate("neon", Neon::NEEDS, Neon::new()),
        candidate("scalar", "nothing", Some(Scalar)),
    ]
}

/// The best kernel for this CPU.
pub fn best() -> &'static dyn Kernels {
    all().into_iter().find_map(|c| c.kernels).unwrap_or(&Scalar)
}

/// The kernel of that name.
pub fn by_name(name: &str) -> Result<&'static dyn Kernels, KernelError> {
    let all = all();
    let Some(found) = all.iter().find(|c| c.name == name) else {
        let known = all.iter().map(|c| c.name).collect::<Vec<_>>().join(", ");
        return Err(KernelError::Unknown { name: name.to_owned(), known });
    };
    found.kernels.ok_or(KernelError::NotHere { name: found.name, needs: found.needs })
}
