// Reads a report as a viewer built on Cornerstone3D does, and prints the annotations that it makes of it as JSON.
// Usage: node hydrate.mjs REPORT.dcm FILM.json; the film as {uid, rows, columns, spacing}
import { readFileSync } from 'node:fs';
import dcmjs from 'dcmjs';
import { metaData } from '@cornerstonejs/core';
import { adaptersSR } from '@cornerstonejs/adapters';

const [report, film] = process.argv.slice(2);
const { uid, rows, columns, spacing } = JSON.parse(film);
const plane = {
  rows, columns, rowCosines: [1, 0, 0], columnCosines: [0, 1, 0], imagePositionPatient: [0, 0, 0],
  rowPixelSpacing: spacing[0], columnPixelSpacing: spacing[1],
};
metaData.addProvider((type) => (type === 'imagePlaneModule' ? plane : undefined));
console.log = () => {}; // the adapters talk
const { dict } = dcmjs.data.DicomMessage.readFile(readFileSync(report).buffer);
const dataset = dcmjs.data.DicomMetaDictionary.naturalizeDataset(dict);
const state = adaptersSR.Cornerstone3D.MeasurementReport.generateToolState(dataset, { [`${uid}:1`]: 'film' }, metaData);
process.stdout.write(JSON.stringify(state));
