// The harness itself: WebGPU computes in headless Chromium, on every software adapter this machine has.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { adapters, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/serve.mjs';

/** Squares 0..44 in a compute shader, in the given type. Runs in the page. @param {boolean} half */
async function squares(half) {
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error('no WebGPU adapter');
  const f16 = adapter.features.has('shader-f16');
  const device = await adapter.requestDevice({ requiredFeatures: f16 ? ['shader-f16'] : [] });
  const code = `${half ? 'enable f16; alias real = f16;' : 'alias real = f32;'}
    @group(0) @binding(0) var<storage, read_write> data: array<f32>;
    @compute @workgroup_size(45) fn main(@builtin(local_invocation_index) i: u32) {
      let x = real(i);
      data[i] = f32(x * x);
    }`;
  const compute = await device.createComputePipelineAsync({
    layout: 'auto',
    compute: { module: device.createShaderModule({ code }) },
  });
  const buffer = device.createBuffer({ size: 180, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
  const staging = device.createBuffer({ size: 180, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(compute);
  pass.setBindGroup(
    0,
    device.createBindGroup({ layout: compute.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer } }] }),
  );
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, 180);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  return {
    f16,
    values: [...new Float32Array(staging.getMappedRange())],
    vendor: adapter.info.vendor,
    description: adapter.info.description,
  };
}

for (const name of adapters) {
  test(`${name} computes`, async t => {
    const server = await serve(join(root, 'tests/web/support'));
    t.after(server.close);
    await withBrowser({ adapter: name }, async context => {
      const page = await context.newPage();
      await page.goto(`${server.url}blank.html`);
      const expected = Array.from({ length: 45 }, (_, i) => i * i); // up to 1936: exact in f16
      const single = await page.evaluate(squares, false);
      t.diagnostic(`${single.vendor} ${single.description}, shader-f16: ${single.f16}`);
      assert.deepEqual(single.values, expected);
      assert.equal(single.f16, name === 'lavapipe', 'tests of both arithmetics rely on this');
      if (single.f16) assert.deepEqual((await page.evaluate(squares, true)).values, expected);
    });
  });
}
