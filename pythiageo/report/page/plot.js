"use strict";
// A page of one plot.
async function start() {
  loadLibrary();
  const figure = new Figure(byId("panels-plot"), byId("legend-plot"));
  const show = () => figure.show({ panels: data.plot.panels, x: stepAxis(data.plot.steps, true) });
  startTheme(show);
  show();
  startPrint(() => [figure]);
  await settle();
}
start();
