//! The child process: compiles SPIR-V with the Vulkan driver that it is given, and writes what that says of it.

use ash::vk;
use serde_json::{Map, Value, json};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write;
use std::path::Path;

/// Stands in the output before the name of the file that was written, and what the driver printed while it compiled.
pub const MARK: &str = "\n==== compiled into ";

unsafe extern "C" {
    /// Of all streams, for null.
    fn fflush(stream: *mut c_void) -> c_int;
}

/// Compiles each `FILE.spv:STORAGE_BUFFERS` and writes `FILE.json` into `out`: the driver's statistics and its machine
/// code.
pub fn compile(out: &Path, files: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: the loader and the driver are Mesa's; every structure that they are handed lives until the call is over.
    unsafe {
        let entry = ash::Entry::load()?;
        let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let instance =
            entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&app), None)?;
        let gpu = *instance.enumerate_physical_devices()?.first().ok_or("the driver has no device")?;
        let mut executables = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
        let mut v1_1 = vk::PhysicalDeviceVulkan11Features::default();
        let mut v1_2 = vk::PhysicalDeviceVulkan12Features::default();
        let mut v1_3 = vk::PhysicalDeviceVulkan13Features::default();
        let mut features = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut executables)
            .push_next(&mut v1_1)
            .push_next(&mut v1_2)
            .push_next(&mut v1_3);
        instance.get_physical_device_features2(gpu, &mut features);
        // Browsers put bounds into the text.
        features.features.robust_buffer_access = vk::FALSE;
        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        let extensions = [ash::khr::pipeline_executable_properties::NAME.as_ptr()];
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .push_next(&mut features);
        let device = instance.create_device(gpu, &info, None)?;
        let said = ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
        for file in files {
            let (path, buffers) = file.rsplit_once(':').ok_or("FILE.spv:STORAGE_BUFFERS")?;
            let name = Path::new(path).with_extension("json");
            let to = out.join(name.file_name().ok_or("a file without a name")?);
            writeln!(std::io::stdout(), "{MARK}{}", to.display())?;
            std::io::stdout().flush()?;
            let result = match pipeline(&device, Path::new(path), buffers.parse()?) {
                Ok(pipeline) => statistics(&said, pipeline)?,
                Err(error) => json!({ "error": error.to_string() }),
            };
            fflush(std::ptr::null_mut());
            // Whole or not at all, whatever ends this process.
            std::fs::write(to.with_extension("part"), result.to_string())?;
            std::fs::rename(to.with_extension("part"), to)?;
        }
    }
    Ok(())
}

unsafe fn pipeline(
    device: &ash::Device,
    path: &Path,
    buffers: u32,
) -> Result<vk::Pipeline, Box<dyn std::error::Error>> {
    let code = ash::util::read_spv(&mut std::fs::File::open(path)?)?;
    let bindings: Vec<_> = (0..=buffers)
        .map(|binding| {
            let uniform = binding == 0;
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
                .descriptor_type(match uniform {
                    true => vk::DescriptorType::UNIFORM_BUFFER,
                    false => vk::DescriptorType::STORAGE_BUFFER,
                })
        })
        .collect();
    // SAFETY: as in `compile`.
    unsafe {
        let module = device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&code), None)?;
        let layout = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        let sets = [device.create_descriptor_set_layout(&layout, None)?];
        let layout = device
            .create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default().set_layouts(&sets), None)?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
            | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
        let info = vk::ComputePipelineCreateInfo::default().flags(flags).stage(stage).layout(layout);
        let made = device.create_compute_pipelines(vk::PipelineCache::null(), &[info], None);
        Ok(made.map_err(|(_, error)| error)?[0])
    }
}

unsafe fn statistics(
    said: &ash::khr::pipeline_executable_properties::Device,
    pipeline: vk::Pipeline,
) -> Result<Value, Box<dyn std::error::Error>> {
    // SAFETY: as in `compile`; a statistic's format says which of the union's values it has.
    unsafe {
        let of = vk::PipelineInfoKHR::default().pipeline(pipeline);
        let executables = said.get_pipeline_executable_properties(&of)?;
        let lanes = executables.first().ok_or("nothing was compiled")?.subgroup_size;
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        let mut out = Map::new();
        for s in said.get_pipeline_executable_statistics(&info)? {
            let value = match s.format {
                vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => json!(s.value.f64),
                _ => json!(s.value.u64),
            };
            out.insert(text(&s.name), value);
        }
        let code = code(said, &info)?;
        Ok(json!({ "lanes": lanes, "statistics": out, "code": code }))
    }
}

/// The last of the driver's representations that is text: its machine code.
unsafe fn code(
    said: &ash::khr::pipeline_executable_properties::Device,
    info: &vk::PipelineExecutableInfoKHR<'_>,
) -> Result<Map<String, Value>, Box<dyn std::error::Error>> {
    // SAFETY: as in `compile`; the buffers are as long as the driver asked.
    unsafe {
        let get = said.fp().get_pipeline_executable_internal_representations_khr;
        let (device, mut count) = (said.device(), 0);
        get(device, info, &mut count, std::ptr::null_mut()).result()?;
        let mut all = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
        get(device, info, &mut count, all.as_mut_ptr()).result()?;
        let mut texts: Vec<Vec<u8>> = all.iter().map(|r| vec![0; r.data_size + 1]).collect();
        for (r, text) in all.iter_mut().zip(&mut texts) {
            r.p_data = text.as_mut_ptr().cast();
        }
        get(device, info, &mut count, all.as_mut_ptr()).result()?;
        Ok(all
            .iter()
            .zip(&texts)
            .filter(|(r, _)| r.is_text == vk::TRUE)
            .map(|(r, t)| (text(&r.name), json!(String::from_utf8_lossy(t).trim_end_matches('\0'))))
            .collect())
    }
}

fn text(name: &[c_char]) -> String {
    // SAFETY: the driver's names end with a zero.
    unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned()
}
