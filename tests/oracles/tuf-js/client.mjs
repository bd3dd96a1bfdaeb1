// The tuf-js client: refreshes from a repository, and fetches one target. Prints where the target lies.
//   node client.mjs METADATA-DIR METADATA-URL TARGET-DIR TARGET-URL TARGET
import { createRequire } from "node:module";
const require = createRequire(`${process.env.ORACLE}/`);
const { Updater } = require("tuf-js");

const [metadataDir, metadataBaseUrl, targetDir, targetBaseUrl, target] = process.argv.slice(2);
const updater = new Updater({ metadataDir, metadataBaseUrl, targetDir, targetBaseUrl, config: { fetchRetries: 0 } });
await updater.refresh();
const info = await updater.getTargetInfo(target);
if (!info) {
  console.error(`no such target: ${target}`);
  process.exit(1);
}
console.log(await updater.downloadTarget(info));
