#ifndef EDGE_WM_LOOP_H
#define EDGE_WM_LOOP_H
void loop_start(void);
void loop_once(void);
#endif
