import { svelte, vitePreprocess } from '@sveltejs/vite-plugin-svelte';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { defineConfig, type Plugin } from 'vite';

const root = import.meta.dirname;
const target = join(root, '../src/musicrl/server/static');

/** SHA-256 over every source file that the build reads; tests/server/test_static.py computes the same. */
function sourceHash(): string {
  const folders = ['src', 'public'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join('/')),
  );
  const files = [...folders, 'index.html', 'package-lock.json', 'package.json', 'tsconfig.json', 'vite.config.ts'];
  const hash = createHash('sha256');
  for (const file of files.sort()) {
    const content = createHash('sha256').update(readFileSync(join(root, file))).digest('hex');
    hash.update(`${content}  ${file}\n`);
  }
  return hash.digest('hex');
}

const recordSource: Plugin = {
  name: 'record-source',
  closeBundle() {
    writeFileSync(join(target, 'source.sha256'), `${sourceHash()}\n`);
  },
};

export default defineConfig({
  plugins: [svelte({ preprocess: vitePreprocess() }), recordSource],
  build: {
    outDir: target,
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: false,
    assetsInlineLimit: 0,
    rollupOptions: {
      output: { entryFileNames: 'app.js', chunkFileNames: '[name].js', assetFileNames: '[name][extname]' },
    },
  },
  server: { proxy: { '/api': 'http://127.0.0.1:8000', '/m': 'http://127.0.0.1:8000' } },
});
