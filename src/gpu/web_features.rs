//! What wgpu 30 does not map on the web: the adapter's info, the subgroups feature, and pipelines that compile while
//! other work goes on. All of it is here and goes when wgpu has it.

use super::adapter::AdapterInfo;
use js_sys::{Array, Function, JsString, Object, Promise, Proxy, Reflect};
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = GPUAdapter)]
    type RawAdapter;
    #[wasm_bindgen(js_name = GPUDevice)]
    type RawDevice;
    #[wasm_bindgen(method, getter)]
    fn info(this: &RawAdapter) -> Object;
    #[wasm_bindgen(method, getter)]
    fn features(this: &RawAdapter) -> js_sys::Set;
    #[wasm_bindgen(method, js_name = createShaderModule)]
    fn create_shader_module(this: &RawDevice, descriptor: &Object) -> JsValue;
    #[wasm_bindgen(method, js_name = createBindGroupLayout)]
    fn create_bind_group_layout(this: &RawDevice, descriptor: &Object) -> JsValue;
    #[wasm_bindgen(method, js_name = createPipelineLayout)]
    fn create_pipeline_layout(this: &RawDevice, descriptor: &Object) -> JsValue;
    #[wasm_bindgen(method, js_name = createComputePipelineAsync)]
    fn create_compute_pipeline_async(this: &RawDevice, descriptor: &Object) -> Promise;
}

/// [`wgpu::Adapter::request_device`] that adds "subgroups" to the features where the adapter has them: while wgpu asks,
/// `GPUAdapter.prototype.requestDevice` is ours.
///
/// # Errors
/// Those of [`wgpu::Adapter::request_device`].
pub(super) async fn request_device(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Result<(wgpu::Device, wgpu::Queue, AdapterInfo), wgpu::RequestDeviceError> {
    let seen = Rc::new(RefCell::new(AdapterInfo::default()));
    let request = {
        let _asking = Asking::new(seen.clone());
        adapter.request_device(descriptor)
    };
    let (device, queue) = request.await?;
    Ok((device, queue, seen.take()))
}

/// While it lives, `requestDevice` notes the adapter's info and asks for subgroups.
struct Asking {
    prototype: JsValue,
    original: JsValue,
    _apply: Closure<dyn FnMut(Function, JsValue, Array) -> JsValue>,
}

const NAME: &str = "requestDevice";

impl Asking {
    fn new(seen: Rc<RefCell<AdapterInfo>>) -> Option<Self> {
        let class = Reflect::get(&js_sys::global(), &"GPUAdapter".into()).ok()?;
        let prototype = Reflect::get(&class, &"prototype".into()).ok()?;
        let original = Reflect::get(&prototype, &NAME.into()).ok()?;
        let apply = Closure::new(move |target: Function, this: JsValue, arguments: Array| {
            let adapter: &RawAdapter = this.unchecked_ref();
            let info = adapter.info();
            let text = |key: &str| {
                Reflect::get(&info, &key.into()).ok().and_then(|v| v.as_string()).unwrap_or_default()
            };
            let subgroups = adapter.features().has(&"subgroups".into());
            if subgroups {
                let wanted = Reflect::get(&arguments.get(0), &"requiredFeatures".into());
                if let Some(wanted) = wanted.ok().filter(Array::is_array) {
                    wanted.unchecked_into::<Array>().push(&"subgroups".into());
                }
            }
            let size = |key: &str| {
                Reflect::get(&info, &key.into()).ok().and_then(|v| v.as_f64()).map_or(0, |n| n as u32)
            };
            *seen.borrow_mut() = AdapterInfo {
                vendor: text("vendor"),
                architecture: text("architecture"),
                name: text("description"),
                subgroup_sizes: if subgroups {
                    (size("subgroupMinSize"), size("subgroupMaxSize"))
                } else {
                    (0, 0)
                },
                // Firefox says no maker, but this.
                fallback: Reflect::get(&info, &"isFallbackAdapter".into()).is_ok_and(|v| v.is_truthy()),
            };
            Reflect::apply(&target, &this, &arguments).unwrap_or_else(|e| Promise::reject(&e).into())
        });
        let handler = object(&[("apply", AsRef::<JsValue>::as_ref(&apply).clone())]);
        let proxy = Proxy::new(&original, &handler);
        Reflect::set(&prototype, &NAME.into(), &proxy).ok()?;
        Some(Self { prototype, original, _apply: apply })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // It was set before, so it can be set again.
        let _ = Reflect::set(&self.prototype, &NAME.into(), &self.original);
    }
}

/// Starts to compile `text` beside everything else. The browser keeps what it has compiled as long as the promise's
/// pipeline lives, and hands it out when wgpu asks for the same text and layout. `writable`: see
/// `Gpu::layout`.
pub fn compile(device: &wgpu::Device, text: &str, writable: &[bool]) -> Option<Promise> {
    let device: &RawDevice = AsRef::<JsValue>::as_ref(device.as_webgpu()?).unchecked_ref();
    const COMPUTE: u32 = 4;
    let entry = |binding: usize, kind: &str| -> JsValue {
        let buffer = object(&[("type", kind.into())]);
        object(&[
            ("binding", (binding as u32).into()),
            ("visibility", COMPUTE.into()),
            ("buffer", buffer.into()),
        ])
        .into()
    };
    let entries = Array::of1(&entry(0, "uniform"));
    for (i, write) in writable.iter().enumerate() {
        entries.push(&entry(i + 1, if *write { "storage" } else { "read-only-storage" }));
    }
    let group = device.create_bind_group_layout(&object(&[("entries", entries.into())]));
    let layout = device.create_pipeline_layout(&object(&[("bindGroupLayouts", Array::of1(&group).into())]));
    let module = device.create_shader_module(&object(&[("code", text.into())]));
    let compute = object(&[("module", module), ("entryPoint", "main".into())]);
    Some(device.create_compute_pipeline_async(&object(&[("layout", layout), ("compute", compute.into())])))
}

fn object(fields: &[(&str, JsValue)]) -> Object {
    let out = Object::new();
    for (key, value) in fields {
        // Fails for frozen objects and proxies only; this is our own.
        let _ = Reflect::set(&out, &JsString::from(*key), value);
    }
    out
}
