// What htmx does not do. The prediction itself is htmx's: see the form's hx-* attributes. All that is entered, be it by
// keys, sliders, the map or a pasted row, ends in the fields of the form.

import "./answer.js";
import "./address.js";
import "./gestures.js";
import "./entry.js";
import "./map.js";
import "./paste.js";
import "./share.js";
import "./upload.js";

if (document.getElementById("find")) import("./find.js");
