// node jasmine.cjs <bundle> <jasmine>: runs the bundle's specs and writes a JSON line for each to descriptor 3.
const { writeSync } = require('node:fs');

const [, , bundle, jasminePath] = process.argv;
const Jasmine = require(jasminePath);
const jasmine = new Jasmine();
jasmine.randomizeTests(false);
jasmine.exitOnCompletion = false;
jasmine.clearReporters();
jasmine.addReporter({
  specDone({ fullName, status, failedExpectations }) {
    const message = failedExpectations[0]?.message?.split('\n')[0];
    writeSync(3, `${JSON.stringify({ name: fullName, status, message })}\n`);
  },
});
jasmine.specFiles = [bundle];
jasmine.execute().then(() => {
  writeSync(3, '"done"\n');
  process.exit(0);
});
