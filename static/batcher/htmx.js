// How htmx is set up here, before it looks at the page.
// Its sheet for indicators would be an inline style, which the page's policy forbids: admin.css has those rules.
"use strict";
htmx.config.includeIndicatorStyles = false;
htmx.config.selfRequestsOnly = true;
