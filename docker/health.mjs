// The coordinator's health check: asks its own listener, `node health.mjs https://127.0.0.1:7700/health`. The
// certificate is not looked at: this is the same machine, and nothing is sent that anyone could use.
import http from 'node:http';
import https from 'node:https';

const url = new URL(process.argv[2] ?? 'https://127.0.0.1:7700/health');
const { get } = url.protocol === 'http:' ? http : https;
const request = get(url, { rejectUnauthorized: false, timeout: 4000 }, (response) => {
  response.resume();
  response.on('end', () => fail(response.statusCode === 200 ? undefined : `status ${response.statusCode}`));
});
request.on('timeout', () => request.destroy(new Error('no answer within 4 seconds')));
request.on('error', (error) => fail(error.message));

function fail(problem) {
  if (problem === undefined) return;
  console.error(`${url}: ${problem}`);
  process.exitCode = 1;
}
