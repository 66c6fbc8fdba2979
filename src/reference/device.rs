//! Where candle multiplies.

use candle_core::Device;

/// The CPU; with the feature `candle-cuda` the first NVIDIA GPU, where there is one.
pub fn device() -> &'static Device {
    #[cfg(feature = "candle-cuda")]
    {
        use std::sync::OnceLock;
        static DEVICE: OnceLock<Device> = OnceLock::new();
        DEVICE.get_or_init(|| {
            Device::new_cuda(0).unwrap_or_else(|error| {
                log::warn!("the reference stays on the CPU: {error}");
                Device::Cpu
            })
        })
    }
    #[cfg(not(feature = "candle-cuda"))]
    &Device::Cpu
}
