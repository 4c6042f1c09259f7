//! What browsers offer and wgpu does not map yet, read from the JavaScript objects below it. `www/webgpu.js` asks for
//! these features when a device is requested. Gone when wgpu has them.

use wasm_bindgen::JsValue;

fn get(of: &JsValue, name: &str) -> JsValue {
    js_sys::Reflect::get(of, &name.into()).unwrap_or(JsValue::UNDEFINED)
}

/// The adapter's smallest and largest subgroups, where `device` has the feature "subgroups"; else zeros.
pub(super) fn subgroup_sizes(device: &wgpu::Device) -> (u32, u32) {
    let Some(device) = device.as_webgpu() else { return (0, 0) };
    let device: &JsValue = device.as_ref();
    let features = js_sys::Array::from(&get(device, "features"));
    if !features.iter().any(|f| f == "subgroups") {
        return (0, 0);
    }
    let info = get(device, "adapterInfo");
    let size = |name| get(&info, name).as_f64().unwrap_or(0.0) as u32;
    (size("subgroupMinSize"), size("subgroupMaxSize"))
}
