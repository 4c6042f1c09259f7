/**
 * Features that the engine's GPU library does not ask for yet: they are added to what it requests. Imported for this
 * effect, before the engine starts.
 */

if (globalThis.GPUAdapter) {
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = function (descriptor = {}) {
    const requiredFeatures = new Set(descriptor.requiredFeatures);
    if (this.features.has('subgroups')) requiredFeatures.add('subgroups');
    return requestDevice.call(this, { ...descriptor, requiredFeatures: [...requiredFeatures] });
  };
}
